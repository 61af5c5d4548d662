"""Stage 2: features and labels -> a run. The baseline, on mean features, is trained beside the classifier."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from vidpipe.config import TrainConfig
from vidpipe.datasets.leaks import Leak, exclude_conflicts, find_leaks
from vidpipe.datasets.people import check_same_tracks
from vidpipe.datasets.protocol import Protocol, draw_protocol
from vidpipe.datasets.sequences import SequenceDataset, Subsets, read_subsets
from vidpipe.datasets.splits import SUBSETS, Split, describe_grouping
from vidpipe.datasets.streams import Stores, choose_streams, name_stores
from vidpipe.datasets.warning_collector import collect_warnings
from vidpipe.errors import UsageError, count_of
from vidpipe.features.store import FeatureStore
from vidpipe.heads.fusion import Fusion, MemberHeads
from vidpipe.heads.heads import LinearHead
from vidpipe.heads.inputs import input_of
from vidpipe.heads.members import BASELINE, FUSED, Member, baseline_members, resolve_val_fraction
from vidpipe.records import LabeledVideo
from vidpipe.runs.background_check import BackgroundCheck
from vidpipe.runs.metrics import Evaluation
from vidpipe.runs.plots import plot_confusion, plot_history
from vidpipe.runs.run import Run, RunMember, RunStream, save_run
from vidpipe.runs.run_folder import check_apart_from_store
from vidpipe.runs.tables import Epoch, PredictionRow, SplitRow
from vidpipe.training.caveats import result_caveats, split_caveats
from vidpipe.training.controls import BackgroundExam, MaskedStores
from vidpipe.training.cross_validation import CrossValidation, cross_validate
from vidpipe.training.fit import Callbacks, compute_uncalibrated_logits
from vidpipe.training.fusion import FittedClassifier, Watched, fit_classifier
from vidpipe.training.fusion_weights import FusionWeights
from vidpipe.training.scoring import Scores, score_classifiers
from vidpipe.training.selection import HeadChoice, choose_head
from vidpipe.training.session import TrainingSession, open_session
from vidpipe.training.timelines import TimelineExam, TimelineResult, write_timelines

__all__ = ["TrainResult", "prediction_rows", "split_rows", "train"]

logger = logging.getLogger(__name__)

ScoresBySubset = Mapping[str, Mapping[str, Scores]]
"""By subset, then by classifier or part of it; see `vidpipe.heads.fusion.Fusion.parts`."""


@dataclass(frozen=True)
class TrainResult:
    """A run, and how well its classifier does."""

    run: Run
    split: Split
    """The videos of each subset: `split["test"]`."""
    scores: ScoresBySubset
    """Predictions of the classifiers trained on train alone, on val and test: `scores["test"]["fusion"]`."""
    cross_validation: CrossValidation | None
    leaks: tuple[Leak, ...]
    timelines: TimelineResult | None = None
    """Of the validation and the test videos, where the labels are of intervals."""
    background_check: BackgroundCheck | None = None
    """What `check_background` found."""

    @property
    def evaluations(self) -> dict[str, dict[str, Evaluation]]:
        """The metrics, by subset and classifier or part: `evaluations["test"]["fusion"].top1`."""
        return {
            subset: {name: scores.evaluation for name, scores in by_head.items()}
            for subset, by_head in self.scores.items()
        }


def train(
    stores: Stores,
    videos: Sequence[LabeledVideo],
    run_path: Path,
    *,
    config: TrainConfig,
    more_splits: Sequence[Sequence[LabeledVideo]] = (),
    resume: bool = False,
    overwrite: bool = False,
    tensorboard: bool = False,
    skip_conflicts: bool = False,
    label_warnings: Sequence[str] = (),
    exam: TimelineExam | None = None,
    masked: MaskedStores | None = None,
    on_epoch: Callable[[str, Epoch], None] = lambda head, epoch: None,
) -> TrainResult:
    """Train a classifier and the baseline on the features of one or more streams, test them once, then refit them.

    The metrics are those of classifiers trained on the training set alone. The saved ones are refitted to all videos
    except a test set that the labels give, unless `config.refit` is off.

    Args:
        stores: the features by stream, or one store. Leaks and conflicts are looked for in the first stream.
        videos: labelled videos, each in every store.
        run_path: the folder to write; it is replaced as a whole at the end.
        config: the settings. With `folds` or `leave_one_group_out`, cross-validation tests every video outside a given
            test set; then the run is trained on all of them.
        more_splits: the same videos with other given splits, such as UCF101's second and third, to cross-validate over.
        resume: continue an interrupted training from its checkpoint.
        overwrite: replace the run, or the interrupted training, that is there.
        tensorboard: write TensorBoard events beside history.csv.
        skip_conflicts: exclude videos that have identical features but different labels; without it, they are an error.
        label_warnings: the warnings of reading the labels (`collect_warnings`), to save in the run.
        exam: where the videos are windows of long videos, scores the timelines of these.
        masked: with `check_background`, the features of the videos with the people, or all else, painted out.
        on_epoch: called after each epoch with the name of the member (`flow/lstm`) or of the only head (`lstm`).

    Returns:
        The run, and how well its classifier does.

    Raises:
        LabelsError: the labels cannot be split, or two videos have identical features but different labels.
        UsageError: the folder holds something else than a run, or the settings or the masked stores do not fit the
            videos.
        RunError: the folder cannot be written, its checkpoint is of another training, or another process trains it.
        TrainingError: a loss is not finite.
        InterruptedTrainingError: Ctrl-C; the last checkpoint is kept.
    """
    named = choose_streams(name_stores(stores), config.stream_names)
    for store in named.values():
        check_apart_from_store(run_path, store.path)
    check_same_tracks(named)
    first = next(iter(named.values()))
    with collect_warnings() as conflict_warnings:
        kept = exclude_conflicts(first, videos, skip=skip_conflicts)
    options = {"resume": resume, "overwrite": overwrite, "tensorboard": tensorboard}
    with open_session(run_path, config, **options, on_epoch=on_epoch) as session:
        with collect_warnings() as split_warnings:
            protocol = draw_protocol(kept, resolve_val_fraction(config, len(named)), more_splits)
        subsets = read_subsets(named, protocol.split)
        check = _open_check(named, masked, protocol, session)
        members = session.set_head(_choose_head(subsets["train"], session), tuple(named))
        tested = _fit(members, subsets, session)
        scores = _score(tested, subsets)
        timelines = exam.examine(tested.own, subsets, session.set_stage) if exam else None
        cross_validation = _cross_validate(subsets, protocol, session, check)
        background_check = check.finish(tested.own.fusion, subsets) if check else None
        saved = _refit(tested, subsets, session)
        leaks = tuple(find_leaks(subsets, first))
        results = _Results(protocol.split, subsets, scores, cross_validation, leaks, timelines, background_check)
        warnings = (*label_warnings, *conflict_warnings, *split_warnings)
        run = _make_run(named, results, saved, session, warnings)
        session.folder.put_in_place(partial(_write_run, first, run, results, saved, tested.history))
    return TrainResult(run, results.split, scores, cross_validation, results.leaks, timelines, background_check)


# The steps


@dataclass(frozen=True)
class _Fitted:
    """The classifier and the baseline, fitted."""

    own: FittedClassifier
    baseline: Fusion
    learned_subsets: tuple[str, ...] = ("train",)
    """The subsets that they are fitted to."""

    @property
    def classifiers(self) -> tuple[Fusion, Fusion]:
        """The classifier, then the baseline."""
        return self.own.fusion, self.baseline

    @property
    def history(self) -> Sequence[Epoch]:
        """The epochs of the classifier's members."""
        return self.own.history


@dataclass(frozen=True)
class _Results:
    """All that a training finds out about its classifiers and its videos."""

    split: Split
    subsets: Subsets
    scores: ScoresBySubset
    cross_validation: CrossValidation | None
    leaks: tuple[Leak, ...]
    timelines: TimelineResult | None
    background_check: BackgroundCheck | None


def _choose_head(training: SequenceDataset, session: TrainingSession) -> HeadChoice:
    """The heads that the config names, that --head auto chooses, or that it chose before the interruption."""
    if session.config.head != "auto":
        return HeadChoice(session.config.head)
    choice = session.choice
    if choice is None or not choice.reason:
        session.stage = "while comparing heads"
        choice = choose_head(training, session.config)
    logger.info("head: %s", choice.reason)
    return choice


def _fit(
    members: Sequence[Member],
    subsets: Subsets,
    session: TrainingSession,
    *,
    refit_epochs: Mapping[str, int] | None = None,
    weights: FusionWeights | None = None,
) -> _Fitted:
    """Fit the classifier, then the baseline; a refit has numbers of epochs and weights."""
    is_refit, config = refit_epochs is not None, session.config
    with closing(session.open_journal(subsets, refit_epochs)) as journal:

        def watch(member: Member) -> Watched:
            name, writer = member.name if len(members) > 1 else member.head, journal.open_member(member)

            def on_epoch(epoch: Epoch) -> None:
                writer.on_epoch(epoch)
                session.record_epoch(name, epoch, is_refit=is_refit)

            return Watched(Callbacks(on_epoch, writer.on_checkpoint), writer.resumed, writer.finish)

        own = fit_classifier(
            members, subsets, config, watch=watch, max_epochs=refit_epochs, weights=weights, on_stage=session.set_stage
        )
    baseline = baseline_members(subsets["train"].streams)
    if baseline == tuple(members):
        return _Fitted(own, own.fusion)
    callbacks = Callbacks(partial(session.record_epoch, BASELINE, is_refit=is_refit))
    return _Fitted(own, fit_classifier(baseline, subsets, config, watch=lambda member: Watched(callbacks)).fusion)


def _score(fitted: _Fitted, subsets: Subsets) -> ScoresBySubset:
    """Apply the classifiers to the validation set and the test set, where these have videos."""
    return {
        subset: score_classifiers(fitted.classifiers, subsets[subset])
        for subset in ("val", "test")
        if len(subsets[subset])
    }


def _open_check(
    stores: Mapping[str, FeatureStore], masked: MaskedStores | None, protocol: Protocol, session: TrainingSession
) -> BackgroundExam | None:
    """The background check that the config asks for, on the test videos that there are."""
    if not session.config.check_background:
        return None
    split = protocol.split
    evaluation_set = "folds" if protocol.crossed else "test" if split.test else "val"
    if not protocol.crossed and not split[evaluation_set]:
        raise UsageError("--check-background needs videos to test: give --folds 5, or a --test-fraction above 0")
    videos = [video for subset in SUBSETS for video in split[subset]]
    matched = masked.match(stores, videos) if masked else {}
    return BackgroundExam(stores, matched, session.config, evaluation_set)


def _cross_validate(
    subsets: Subsets, protocol: Protocol, session: TrainingSession, check: BackgroundExam | None
) -> CrossValidation | None:
    """Cross-validate the classifier and the baseline; None where the protocol has no splits for it."""
    if not protocol.crossed:
        return None
    session.stage = "during cross-validation"
    videos = subsets["train"].concatenate(subsets["val"], subsets["test"])
    on_fitted = check.examine if check else None
    return cross_validate(videos, protocol.crossed, session.config, with_baseline=True, on_fitted=on_fitted)


def _refit(tested: _Fitted, subsets: Subsets, session: TrainingSession) -> _Fitted:
    """Fit the classifiers again, to all videos except a given test set, for the numbers of epochs that were best.

    The tested members know only the training set. The temperature of a single neural head comes from its logits of the
    others; the weights and temperatures of a fusion stay.
    """
    is_given = any(video.split for video in subsets["test"].videos)
    others = [subset for subset in ("val", "test") if len(subsets[subset]) and not (subset == "test" and is_given)]
    if not session.config.refit or not others:
        return tested
    unseen = subsets[others[0]].concatenate(*(subsets[subset] for subset in others[1:]))
    learned = subsets["train"].concatenate(unseen)
    logger.info(
        "refitting on all %s for the saved model (--no-refit saves the tested one)", count_of(len(learned), "video")
    )
    fusion = tested.own.fusion
    epochs = {member.name: _best_epoch(tested.history, member) for member in fusion.members}
    refitted = {"train": learned, "val": learned.select([])}
    saved = _fit(fusion.members, refitted, session, refit_epochs=epochs, weights=tested.own.weights)
    if session.config.calibrate and len(fusion.members) == 1:
        for name, member in saved.own.fusion.fitted.items():
            _calibrate_again(member, fusion.fitted[name], unseen)
    return replace(saved, learned_subsets=("train", *others))


def _calibrate_again(member: MemberHeads, tested: MemberHeads, unseen: SequenceDataset) -> None:
    """Calibrate a refitted neural head by the logits of the tested one."""
    for stream, head, before in zip(member.member.streams, member.heads, tested.heads, strict=True):
        if not isinstance(head, LinearHead):
            logits = compute_uncalibrated_logits(before, unseen.stream(stream))
            head.calibrate(logits, unseen.class_index)


def _best_epoch(history: Sequence[Epoch], member: Member) -> int:
    """The epoch of the lowest validation loss, or the last one without validation; of an ensemble, their mean."""
    best: dict[int, Epoch] = {}
    for epoch in history:
        if (epoch.stream, epoch.head) != ("+".join(member.streams), member.head):
            continue
        leader = best.setdefault(epoch.member, epoch)
        if epoch.val_loss is None or leader.val_loss is None or epoch.val_loss < leader.val_loss:
            best[epoch.member] = epoch
    return round(sum(epoch.epoch for epoch in best.values()) / len(best))


# The run


def _make_run(
    stores: Mapping[str, FeatureStore],
    results: _Results,
    saved: _Fitted,
    session: TrainingSession,
    warnings: Sequence[str],
) -> Run:
    """Make the run's record, with all warnings and caveats."""
    subsets, scores, crossed = results.subsets, results.scores, results.cross_validation
    caveats = (
        *split_caveats(subsets, results.leaks, has_folds=crossed is not None),
        *result_caveats(subsets, saved.learned_subsets, scores, crossed, saved.own.fusion),
    )
    return Run(
        path=session.folder.run_path,
        config=session.config,
        class_names=subsets["train"].class_names,
        streams=tuple(RunStream(name, store.key, subsets["train"].stream(name).dim) for name, store in stores.items()),
        members=tuple(_run_members(saved.own.fusion, subsets["train"], session.config)),
        metrics=_metrics(results),
        grouping=describe_grouping(results.split),
        learned_subsets=saved.learned_subsets,
        has_found_weights=saved.own.weights.is_found,
        **_timeline_values(next(iter(stores.values())), results),
        choice=session.reason,
        warnings=tuple(dict.fromkeys((*warnings, *caveats))),
    )


def _timeline_values(store: FeatureStore, results: _Results) -> dict[str, Any]:
    """What a run says about timelines: the length of what it learned from, and what it found on long videos."""
    if results.timelines is None:
        seconds = median(store.info(video.video_id).duration_seconds for video in results.split.train)
        return {"clip_seconds": seconds}
    found = results.timelines
    return {"clip_seconds": found.window_seconds, "background": found.background, "timelines": found.as_dict()}


def _run_members(fusion: Fusion, training: SequenceDataset, config: TrainConfig) -> Iterator[RunMember]:
    for member, weight in zip(fusion.members, fusion.weights.tolist(), strict=True):
        inputs = tuple(input_of(config, training.kinds[stream]) for stream in member.streams)
        yield RunMember(member.streams, member.head, weight, inputs)


def _metrics(results: _Results) -> dict[str, Any]:
    metrics: dict[str, Any] = {
        subset: {name: its_scores.evaluation.as_dict() for name, its_scores in by_head.items()}
        for subset, by_head in results.scores.items()
    }
    if results.cross_validation:
        metrics["folds"] = results.cross_validation.as_dict()
    if results.background_check:
        metrics["background_check"] = results.background_check.as_dict()
    return metrics


def _write_run(
    store: FeatureStore,
    run: Run,
    results: _Results,
    saved: _Fitted,
    history: Sequence[Epoch],
    folder: Path,
) -> None:
    """Fill a run's folder."""
    tables: dict[str, Sequence[Any]] = {
        "splits": list(split_rows(store, results.split)),
        "history": history,
        "predictions": list(prediction_rows(results.scores, _listed(saved))),
        "folds": list(results.cross_validation.rows(_listed(saved))) if results.cross_validation else [],
        "leaks": results.leaks,
    }
    classifiers = dict(zip((FUSED, BASELINE), saved.classifiers, strict=True))
    save_run(run, folder, classifiers=classifiers, tables=tables)
    if results.timelines is not None:
        write_timelines(results.timelines, folder)
    plot_history(folder / "history.png", history)
    for subset in [subset for subset in ("test", "val") if subset in results.scores][:1]:
        confusion = results.scores[subset][run.classifier].evaluation.confusion
        plot_confusion(folder / "confusion.png", confusion, run.class_names, f"{run.classifier}, {subset} videos")


def split_rows(store: FeatureStore, split: Split) -> Iterator[SplitRow]:
    """Yield the rows of splits.csv; the store has the sizes of the files."""
    for subset in SUBSETS:
        for video in split[subset]:
            size_bytes = store.info(video.video_id).size_bytes
            yield SplitRow(video.video_id, video.label, subset, video.group or "", size_bytes)


def _listed(fitted: _Fitted) -> set[str]:
    """The names in predictions.csv and folds.csv; the other parts are in the metrics only."""
    fusion = fitted.own.fusion
    return {fusion.name, *(member.name for member in fusion.members), BASELINE}


def prediction_rows(scores: ScoresBySubset, names: set[str]) -> Iterator[PredictionRow]:
    """Yield the rows of predictions.csv, of the classifiers and parts that are named."""
    for subset, by_name in scores.items():
        for name, its_scores in by_name.items():
            for values in its_scores.rows() if name in names else ():
                yield PredictionRow(split=subset, **values)
