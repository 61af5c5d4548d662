"""Stage 2: features and labels -> a run. The baseline, on mean features, is trained beside the head."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from vidpipe.config import TrainConfig
from vidpipe.datasets.leaks import Leak, exclude_conflicts, find_leaks
from vidpipe.datasets.protocol import Protocol, draw_protocol
from vidpipe.datasets.sequences import SequenceDataset, Subsets, read_subsets
from vidpipe.datasets.splits import SUBSETS, Split, describe_grouping
from vidpipe.datasets.warning_collector import collect_warnings
from vidpipe.errors import count_of
from vidpipe.features.store import FeatureStore
from vidpipe.heads.heads import Head, LinearHead
from vidpipe.records import LabeledVideo
from vidpipe.runs.metrics import Evaluation
from vidpipe.runs.plots import plot_confusion, plot_history
from vidpipe.runs.run import BASELINE, Run, save_run
from vidpipe.runs.run_folder import check_apart_from_store
from vidpipe.runs.tables import Epoch, PredictionRow, SplitRow
from vidpipe.training.caveats import result_caveats, split_caveats
from vidpipe.training.cross_validation import CrossValidation, cross_validate
from vidpipe.training.fit import Callbacks, compute_uncalibrated_logits, fit_head
from vidpipe.training.scoring import Scores
from vidpipe.training.selection import HeadChoice, choose_head
from vidpipe.training.session import TrainingSession, open_session

__all__ = ["TrainResult", "train"]

logger = logging.getLogger(__name__)

ScoresBySubset = Mapping[str, Mapping[str, Scores]]
"""By subset, then by head."""


@dataclass(frozen=True)
class TrainResult:
    """A run, and how well its heads do."""

    run: Run
    split: Split
    """The videos of each subset: `split["test"]`."""
    scores: ScoresBySubset
    """Predictions of the heads trained on train alone, on val and test: `scores["test"]["statistics"]`."""
    cross_validation: CrossValidation | None
    leaks: tuple[Leak, ...]

    @property
    def evaluations(self) -> dict[str, dict[str, Evaluation]]:
        """The metrics, by subset and head: `evaluations["test"]["statistics"].top1`."""
        return {
            subset: {name: scores.evaluation for name, scores in by_head.items()}
            for subset, by_head in self.scores.items()
        }


def train(
    store: FeatureStore,
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
    on_epoch: Callable[[str, Epoch], None] = lambda head, epoch: None,
) -> TrainResult:
    """Train a head and the baseline on a store's features, test them once, then refit them to all videos.

    The metrics are those of heads trained on the training set alone. The saved heads are refitted to all videos except
    a test set that the labels give, unless `config.refit` is off.

    Args:
        store: the features.
        videos: labelled videos, each in the store.
        run_path: the folder to write; it is replaced as a whole at the end.
        config: the settings. With `folds` or `leave_one_group_out`, cross-validation tests every video outside a given
            test set; then the run is trained on all of them.
        more_splits: the same videos with other given splits, such as UCF101's second and third, to cross-validate over.
        resume: continue an interrupted training from its checkpoint.
        overwrite: replace the run, or the interrupted training, that is there.
        tensorboard: write TensorBoard events beside history.csv.
        skip_conflicts: exclude videos that have identical features but different labels; without it, they are an error.
        label_warnings: the warnings of reading the labels (`collect_warnings`), to save in the run.
        on_epoch: called with the head's name after each epoch.

    Returns:
        The run, and how well its heads do.

    Raises:
        LabelsError: the labels cannot be split, or two videos have identical features but different labels.
        UsageError: the folder holds something else than a run, or the settings do not fit the videos.
        RunError: the folder cannot be written, its checkpoint is of another training, or another process trains it.
        TrainingError: a loss is not finite.
        InterruptedTrainingError: Ctrl-C; the last checkpoint is kept.
    """
    check_apart_from_store(run_path, store.path)
    with collect_warnings() as conflict_warnings:
        kept = exclude_conflicts(store, videos, skip=skip_conflicts)
    options = {"resume": resume, "overwrite": overwrite, "tensorboard": tensorboard}
    with open_session(run_path, config, **options, on_epoch=on_epoch) as session:
        with collect_warnings() as split_warnings:
            protocol = draw_protocol(kept, config, more_splits)
        subsets = read_subsets(store, protocol.split)
        session.set_head(_choose_head(subsets["train"], session))
        tested = _fit(subsets, session)
        scores = _score(tested.heads, subsets)
        cross_validation = _cross_validate(subsets, protocol, session)
        saved = _refit(tested, subsets, session)
        results = _Results(protocol.split, subsets, scores, cross_validation, tuple(find_leaks(subsets)))
        warnings = (*label_warnings, *conflict_warnings, *split_warnings)
        run = _make_run(store, results, saved.learned_subsets, session, warnings)
        session.folder.put_in_place(partial(_write_run, store, run, results, saved.heads, tested.history))
    return TrainResult(run, results.split, scores, cross_validation, results.leaks)


# The steps


@dataclass(frozen=True)
class _Fitted:
    """The head and the baseline, fitted."""

    heads: Mapping[str, Head]
    """By name, the run's own head first."""
    history: Sequence[Epoch]
    """The epochs of the run's own head."""
    learned_subsets: tuple[str, ...] = ("train",)
    """The subsets that the heads are fitted to."""


@dataclass(frozen=True)
class _Results:
    """All that a training finds out about its heads and its videos."""

    split: Split
    subsets: Subsets
    scores: ScoresBySubset
    cross_validation: CrossValidation | None
    leaks: tuple[Leak, ...]


def _choose_head(training: SequenceDataset, session: TrainingSession) -> HeadChoice:
    """The head that the config names, that --head auto chooses, or that it chose before the interruption."""
    if session.config.head != "auto":
        return HeadChoice(session.config.head)
    choice = session.choice
    if choice is None or not choice.reason:
        session.stage = "while comparing heads"
        choice = choose_head(training, session.config)
    logger.info("head: %s", choice.reason)
    return choice


def _fit(subsets: Subsets, session: TrainingSession, refit_epochs: int | None = None) -> _Fitted:
    """Fit the head, then the baseline; `refit_epochs` is the number of epochs of a refit."""
    is_refit, config = refit_epochs is not None, session.config

    def record(name: str, epoch: Epoch) -> None:
        session.record_epoch(name, epoch, is_refit=is_refit)

    with closing(session.open_journal(subsets, refit_epochs)) as journal:

        def on_epoch(epoch: Epoch) -> None:
            journal.on_epoch(epoch)
            record(config.head, epoch)

        callbacks = Callbacks(on_epoch, journal.on_checkpoint)
        head, history = fit_head(
            config.head, subsets, config, callbacks=callbacks, resume_from=journal.resumed, max_epochs=refit_epochs
        )
    heads = {config.head: head}
    if config.head != BASELINE:
        callbacks = Callbacks(partial(record, BASELINE))
        heads[BASELINE], _ = fit_head(BASELINE, subsets, replace(config, ensemble=1), callbacks=callbacks)
    return _Fitted(heads, history)


def _score(heads: Mapping[str, Head], subsets: Subsets) -> ScoresBySubset:
    """Apply the heads to the validation set and the test set, where these have videos."""
    return {
        subset: {name: Scores.compute(name, head, subsets[subset]) for name, head in heads.items()}
        for subset in ("val", "test")
        if len(subsets[subset])
    }


def _cross_validate(subsets: Subsets, protocol: Protocol, session: TrainingSession) -> CrossValidation | None:
    """Cross-validate the head and the baseline; None where the protocol has no splits for it."""
    if not protocol.crossed:
        return None
    session.stage = "during cross-validation"
    videos = subsets["train"].concatenate(subsets["val"], subsets["test"])
    heads = list(dict.fromkeys((session.config.head, BASELINE)))
    return cross_validate(videos, protocol.crossed, session.config, heads)


def _refit(tested: _Fitted, subsets: Subsets, session: TrainingSession) -> _Fitted:
    """Fit the heads again, to all videos except a given test set, for the number of epochs that was best.

    The tested heads know only the training set. A neural head's temperature comes from their logits of the others.
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
    saved = _fit({"train": learned, "val": learned.select([])}, session, refit_epochs=_best_epoch(tested.history))
    for name, head in saved.heads.items():
        if session.config.calibrate and not isinstance(head, LinearHead):
            head.calibrate(compute_uncalibrated_logits(tested.heads[name], unseen), unseen.class_index)
    return replace(saved, learned_subsets=("train", *others))


def _best_epoch(history: Sequence[Epoch]) -> int:
    """The epoch of the lowest validation loss, or the last one without validation; of an ensemble, their mean."""
    best: dict[int, Epoch] = {}
    for epoch in history:
        leader = best.setdefault(epoch.member, epoch)
        if epoch.val_loss is None or leader.val_loss is None or epoch.val_loss < leader.val_loss:
            best[epoch.member] = epoch
    return round(sum(epoch.epoch for epoch in best.values()) / len(best))


# The run


def _make_run(
    store: FeatureStore,
    results: _Results,
    learned_subsets: tuple[str, ...],
    session: TrainingSession,
    warnings: Sequence[str],
) -> Run:
    """Make the run's record, with all warnings and caveats."""
    subsets, scores, crossed = results.subsets, results.scores, results.cross_validation
    caveats = (
        *split_caveats(subsets, results.leaks, has_folds=crossed is not None),
        *result_caveats(subsets, learned_subsets, scores, crossed, session.config.head),
    )
    return Run(
        path=session.folder.run_path,
        config=session.config,
        class_names=subsets["train"].class_names,
        key=store.key,
        dim=subsets["train"].dim,
        metrics=_metrics(scores, crossed),
        grouping=describe_grouping(results.split),
        learned_subsets=learned_subsets,
        choice=session.reason,
        warnings=tuple(dict.fromkeys((*warnings, *caveats))),
    )


def _metrics(scores: ScoresBySubset, cross_validation: CrossValidation | None) -> dict[str, Any]:
    metrics: dict[str, Any] = {
        subset: {name: its_scores.evaluation.as_dict() for name, its_scores in by_head.items()}
        for subset, by_head in scores.items()
    }
    return metrics | ({"folds": cross_validation.as_dict()} if cross_validation else {})


def _write_run(
    store: FeatureStore,
    run: Run,
    results: _Results,
    heads: Mapping[str, Head],
    history: Sequence[Epoch],
    folder: Path,
) -> None:
    """Fill a run's folder."""
    tables: dict[str, Sequence[Any]] = {
        "splits": list(_split_rows(store, results.split)),
        "history": history,
        "predictions": list(_prediction_rows(results.scores)),
        "folds": list(results.cross_validation.rows()) if results.cross_validation else [],
        "leaks": results.leaks,
    }
    save_run(run, folder, heads=heads, tables=tables)
    plot_history(folder / "history.png", history)
    for subset in [subset for subset in ("test", "val") if subset in results.scores][:1]:
        confusion = results.scores[subset][run.config.head].evaluation.confusion
        plot_confusion(folder / "confusion.png", confusion, run.class_names, f"{run.config.head}, {subset} videos")


def _split_rows(store: FeatureStore, split: Split) -> Iterator[SplitRow]:
    for subset in SUBSETS:
        for video in split[subset]:
            size_bytes = store.info(video.video_id).size_bytes
            yield SplitRow(video.video_id, video.label, subset, video.group or "", size_bytes)


def _prediction_rows(scores: ScoresBySubset) -> Iterator[PredictionRow]:
    for subset, by_head in scores.items():
        for its_scores in by_head.values():
            for values in its_scores.rows():
                yield PredictionRow(split=subset, **values)
