"""Stage 2: features and labels -> a run. The head asked for and the mean-feature baseline are trained alike."""

import dataclasses
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vidpipe.config import TrainConfig
from vidpipe.datasets.leaks import Leak, find_leaks, refuse_mislabeled
from vidpipe.datasets.sequences import SequenceDataset
from vidpipe.datasets.splits import Split, make_folds, make_split
from vidpipe.datasets.warned import collect_warnings
from vidpipe.errors import InterruptedTrainingError, UsageError, count_of
from vidpipe.features.store import FeatureStore
from vidpipe.heads.heads import Head, LinearHead
from vidpipe.records import LabeledVideo
from vidpipe.runs.metrics import Evaluation
from vidpipe.runs.plots import plot_confusion, plot_history
from vidpipe.runs.run import BASELINE, Run, save_run
from vidpipe.runs.run_folder import TrainingFolder, check_apart_from_store, open_training_folder
from vidpipe.runs.tables import Epoch, PredictionRow, SplitRow
from vidpipe.training.caveats import result_caveats, split_caveats
from vidpipe.training.checkpoints import SECONDS_BETWEEN, Interrupted, Journal, describe
from vidpipe.training.cross_validation import CrossValidation, cross_validate, select_parts
from vidpipe.training.fit import Watcher, fit_head, fit_temperature, seen_by
from vidpipe.training.scoring import evaluate_part, logits_of, prediction_values
from vidpipe.training.selection import choose_head
from vidpipe.training.threads import default_num_threads, use_threads

__all__ = ["TrainResult", "train"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """A run, and how well its heads do on each part: `evaluations["test"]["statistics"]`."""

    run: Run
    split: Split
    evaluations: dict[str, dict[str, Evaluation]]
    cross_validation: CrossValidation | None
    leaks: tuple[Leak, ...]


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
    """Train a head, and the baseline, on a store's features, and test them once; then fit them to all videos.

    The metrics are of heads trained on the training part alone. The saved heads are refitted on every video, except a
    test part that the labels give, unless `config.refit` is off.

    Args:
        store: the features.
        videos: labelled videos, each in the store.
        run_path: the folder to write; it is replaced as a whole at the end.
        config: the settings. With `folds` or `leave_one_group_out`, every video outside a given test part is tested by
            cross-validation first; then the run is trained on all of them.
        more_splits: the same videos with other given splits, such as UCF101's second and third, to cross-validate over.
        resume: go on from what an interrupted training left beside the folder.
        overwrite: replace the run, or the interrupted training, that is there.
        tensorboard: write TensorBoard's events beside history.csv.
        skip_conflicts: leave out videos that have the features of another one under another label, rather than fail.
        label_warnings: what reading the labels warned of (`collect_warnings`), for the run to keep.
        on_epoch: called with the head's name after each epoch.

    Returns:
        the run, and how well its heads do.

    Raises:
        LabelsError: the labels cannot be split, or two videos have identical features and different labels.
        UsageError: the folder holds something else than a run, or the settings do not fit the videos.
        RunError: the folder cannot be written, its checkpoint is of another training, or another process trains it.
        TrainingError: a loss is not finite.
        InterruptedTrainingError: Ctrl-C; the last checkpoint is kept.
    """
    check_apart_from_store(run_path, store.path)
    with collect_warnings() as conflict_warnings:
        videos = refuse_mislabeled(store, videos, skip=skip_conflicts)
    kept_ids = {video.video_id for video in videos}
    more_splits = [[video for video in labelled if video.video_id in kept_ids] for labelled in more_splits]
    warnings = [*label_warnings, *conflict_warnings]
    with open_training_folder(run_path, resume=resume, overwrite=overwrite) as folder:
        before = Interrupted.find(folder.path) if resume else None
        config = replace(config, threads=config.threads or (before.threads if before else default_num_threads()))
        recorder = _Recorder(folder, resume, tensorboard, on_epoch, warnings=warnings)
        try:
            with use_threads(config.threads):
                return _train(store, videos, config, more_splits, before, recorder)
        except KeyboardInterrupt:
            raise _interrupted(recorder) from None


def _train(
    store: FeatureStore,
    videos: Sequence[LabeledVideo],
    config: TrainConfig,
    more_splits: Sequence[Sequence[LabeledVideo]],
    before: Interrupted | None,
    recorder: "_Recorder",
) -> TrainResult:
    """See `train`; `before` is what an interrupted training had settled."""
    with collect_warnings() as warned:
        drawn = _draw_split(videos, config)
        crossed = _crossed_splits(drawn, videos, more_splits, config)
    recorder.warnings += warned
    material = _Material.load(store, drawn)
    split, parts, class_names = material.split, material.parts, material.class_names
    leaks = tuple(find_leaks(parts))
    config = _with_head(config, material, before, recorder)
    heads, history = _fit_heads(parts, class_names, config, recorder)
    cross_validation = _cross_validate(material, crossed, config, recorder)
    logits, evaluations = _evaluate(heads, parts, class_names)
    learned_parts = _parts_to_learn(split, config, is_given=any(video.split == "test" for video in videos))
    if len(learned_parts) > 1:
        learned = material.dataset.part(range(sum(len(getattr(split, part)) for part in learned_parts)))
        heads = _fit_again(heads, history, learned, len(split.train), class_names, config, recorder)
    recorder.warnings += split_caveats(split, leaks, has_folds=cross_validation is not None)
    recorder.warnings += result_caveats(split, learned_parts, evaluations, cross_validation, config.head)
    run = Run(
        path=recorder.folder.run_path,
        config=config,
        class_names=class_names,
        key=store.key,
        dim=material.dataset.dim,
        metrics=_metrics(evaluations, cross_validation),
        grouping=_describe_grouping(split, videos),
        learned_subsets=learned_parts,
        choice=recorder.choice,
        warnings=tuple(dict.fromkeys(recorder.warnings)),
    )
    result = TrainResult(run, split, evaluations, cross_validation, leaks)
    recorder.folder.put_in_place(partial(_write_run, store, result, heads, history, logits))
    return result


def _evaluate(
    heads: Mapping[str, Head], parts: Mapping[str, SequenceDataset], class_names: Sequence[str]
) -> tuple[dict[str, dict[str, NDArray[np.float32]]], dict[str, dict[str, Evaluation]]]:
    """The logits and the metrics of each head on each part that has videos: by part, then by head."""
    logits = {
        part: {name: logits_of(name, head, parts[part]) for name, head in heads.items()}
        for part in ("val", "test")
        if len(parts[part])
    }
    evaluations = {
        part: {name: evaluate_part(rows, parts[part], class_names) for name, rows in by_head.items()}
        for part, by_head in logits.items()
    }
    return logits, evaluations


@dataclass(frozen=True)
class _Material:
    """The videos to learn from and to test on."""

    split: Split
    class_names: tuple[str, ...]
    dataset: SequenceDataset
    """All videos: those of train, of val, then of test."""
    parts: Mapping[str, SequenceDataset]

    @classmethod
    def load(cls, store: FeatureStore, split: Split) -> Self:
        """Read the features of a split's videos."""
        class_names = tuple(sorted({video.label for video in [*split.train, *split.val]}))
        dataset = SequenceDataset(store, [*split.train, *split.val, *split.test], class_names)
        return cls(split, class_names, dataset, select_parts(dataset, split))


def _with_head(
    config: TrainConfig, material: _Material, before: Interrupted | None, recorder: "_Recorder"
) -> TrainConfig:
    """The config with the head that --head auto chooses, or chose before the training was interrupted."""
    if config.head != "auto":
        return config
    if before is not None and before.choice:
        head, recorder.choice = before.head, before.choice
    else:
        recorder.stage = "while comparing heads"
        head, recorder.choice = choose_head(material.parts["train"], material.split.train, material.class_names, config)
    logger.info("head: %s", recorder.choice)
    return replace(config, head=head)


def _write_run(
    store: FeatureStore,
    result: TrainResult,
    heads: Mapping[str, Head],
    history: Sequence[Epoch],
    logits: Mapping[str, Mapping[str, NDArray[np.float32]]],
    folder: Path,
) -> None:
    """Fill a run's folder."""
    run, evaluations, folds = result.run, result.evaluations, result.cross_validation
    tables: dict[str, Sequence[Any]] = {
        "splits": _split_rows(store, result.split),
        "history": history,
        "predictions": list(_predictions(result.split, logits, run.class_names)),
        "folds": list(folds.rows()) if folds else [],
        "leaks": result.leaks,
    }
    save_run(run, folder, heads=heads, tables=tables)
    plot_history(folder / "history.png", history)
    for part in [part for part in ("test", "val") if part in evaluations][:1]:
        best = evaluations[part][run.config.head]
        plot_confusion(folder / "confusion.png", best.confusion, run.class_names, f"{run.config.head}, {part} videos")


def _draw_split(videos: Sequence[LabeledVideo], config: TrainConfig) -> Split:
    """The run's own split: with cross-validation, no test part is drawn, for every video is in one of the folds'."""
    crosses = config.folds is not None or config.leave_one_group_out
    test_fraction = 0.0 if crosses else config.test_fraction
    return make_split(videos, val_fraction=config.val_fraction, test_fraction=test_fraction, seed=config.seed)


def _parts_to_learn(split: Split, config: TrainConfig, *, is_given: bool) -> tuple[str, ...]:
    """What the head that is kept learns from: all videos, but for a test part that the labels give."""
    if not config.refit:
        return ("train",)
    more = [("val", split.val), ("test", () if is_given else split.test)]
    return ("train", *(part for part, videos in more if videos))


@dataclass
class _Recorder:
    """Where the epochs of a fit are written down, who is told of them, and how far the training is."""

    folder: TrainingFolder
    resume: bool
    tensorboard: bool
    on_epoch: Callable[[str, Epoch], None]
    choice: str = ""
    """Why --head auto took the head."""
    stage: str = "before the first epoch"
    warnings: list[str] = dataclasses.field(default_factory=list)

    def open(self, config: TrainConfig, parts: Mapping[str, SequenceDataset], refit_epochs: int | None) -> Journal:
        """Begin to write down a fit."""
        about = describe(config, [*parts["train"].video_ids, "", *parts["val"].video_ids], self.choice)
        about["refit_epochs"] = refit_epochs
        suffix = "" if refit_epochs is None else "_refit"
        return Journal(self.folder.path, suffix, about=about, resume=self.resume, tensorboard=self.tensorboard)

    def record(self, head: str, epoch: Epoch, *, is_refit: bool) -> None:
        """Note an epoch, and pass it on."""
        self.stage = f"after epoch {epoch.epoch} of {head}{', refitted on all videos' * is_refit}"
        self.on_epoch(head, epoch)


def _interrupted(recorder: _Recorder) -> InterruptedTrainingError:
    folder, run_path = recorder.folder, recorder.folder.run_path
    kept = f"; the run in {run_path} is as it was" if (run_path / "run.json").exists() else ""
    if folder.has_checkpoint:
        return InterruptedTrainingError(
            f"stopped {recorder.stage}; the last checkpoint is in {folder.path}{kept}. "
            "The same command with --resume continues from there"
        )
    return InterruptedTrainingError(
        f"stopped {recorder.stage}, before the first checkpoint (there is one every {SECONDS_BETWEEN:g} s of fitting)"
        f"{kept}. The same command starts over"
    )


def _fit_heads(
    parts: Mapping[str, SequenceDataset],
    class_names: Sequence[str],
    config: TrainConfig,
    recorder: _Recorder,
    refit_epochs: int | None = None,
) -> tuple[dict[str, Head], list[Epoch]]:
    """The head asked for, then the baseline; and the first one's epochs. `refit_epochs`: of the fit to all videos."""
    is_refit = refit_epochs is not None
    with closing(recorder.open(config, parts, refit_epochs)) as journal:

        def on_own_epoch(epoch: Epoch) -> None:
            journal.on_epoch(epoch)
            recorder.record(config.head, epoch, is_refit=is_refit)

        watcher = Watcher(on_own_epoch, journal.on_checkpoint, journal.resumed)
        head, history = fit_head(config.head, parts, len(class_names), config, watcher, stop_after=refit_epochs)
    heads = {config.head: head}
    if config.head != BASELINE:
        baseline = Watcher(lambda epoch: recorder.record(BASELINE, epoch, is_refit=is_refit))
        heads[BASELINE] = fit_head(BASELINE, parts, len(class_names), replace(config, ensemble=1), baseline)[0]
    return heads, history


def _fit_again(
    tested: Mapping[str, Head],
    history: Sequence[Epoch],
    videos: SequenceDataset,
    num_known: int,
    class_names: Sequence[str],
    config: TrainConfig,
    recorder: _Recorder,
) -> dict[str, Head]:
    """The heads fitted anew to more videos, by the tested fit's schedule, up to the epoch that was best in it.

    A neural head's temperature is found by what the tested one, which knows the first `num_known` videos, says of the
    others.
    """
    logger.info(
        "refitting on all %s for the saved model (--no-refit saves the tested one)", count_of(len(videos), "video")
    )
    parts = {"train": videos, "val": videos.part([])}
    unseen = videos.part(range(num_known, len(videos)))
    heads, _ = _fit_heads(parts, class_names, config, recorder, refit_epochs=_best_epochs(history))
    for name, head in heads.items():
        if config.calibrate and not isinstance(head, LinearHead):
            head.get_buffer("temperature").fill_(fit_temperature(tested[name], seen_by(name, unseen)))
    return heads


def _best_epochs(history: Sequence[Epoch]) -> int:
    """The epoch of the least validation loss, or the last where there is none; of an ensemble, the mean."""
    best: dict[int, Epoch] = {}
    for epoch in history:
        leader = best.setdefault(epoch.member, epoch)
        if epoch.val_loss is None or leader.val_loss is None or epoch.val_loss < leader.val_loss:
            best[epoch.member] = epoch
    return round(sum(epoch.epoch for epoch in best.values()) / len(best))


def _crossed_splits(
    split: Split,
    videos: Sequence[LabeledVideo],
    more_splits: Sequence[Sequence[LabeledVideo]],
    config: TrainConfig,
) -> list[tuple[int, Split]]:
    """The splits of the protocol that the config asks for, each with its seed; none where the run's own is all.

    Raises:
        UsageError: one has no test part.
    """
    crosses = config.folds is not None or config.leave_one_group_out
    if not crosses and config.repeats == 1 and not more_splits:
        return []
    if not crosses and not split.test:
        raise UsageError(_no_test_part(videos, config))
    splits: list[tuple[int, Split]] = []
    for seed in range(config.seed, config.seed + config.repeats):
        if crosses:
            kept = [video for video in videos if video.split != "test"]
            splits += [(seed, fold) for fold in make_folds(kept, config.folds, config.val_fraction, seed=seed)]
        else:
            drawn = replace(config, seed=seed)
            splits += [(seed, _draw_split(labelled, drawn)) for labelled in (videos, *more_splits)]
    return splits


def _no_test_part(videos: Sequence[LabeledVideo], config: TrainConfig) -> str:
    what = f"--repeats {config.repeats} tests once with each seed, but there is no test part"
    if any(video.split for video in videos):
        return f"{what}: the labels' split has none; give some videos the split test, or cross-validate with --folds 5"
    if config.test_fraction == 0:
        return f"{what} with --test-fraction 0; give a greater fraction, or cross-validate with --folds 5"
    return f"{what}: the videos are too few, or in too few groups, to keep any; add videos, or leave --repeats out"


def _cross_validate(
    material: _Material, splits: Sequence[tuple[int, Split]], config: TrainConfig, recorder: _Recorder
) -> CrossValidation | None:
    """The head and the baseline over all splits; None where there are none."""
    if not splits:
        return None
    recorder.stage = "during cross-validation"
    heads = list(dict.fromkeys((config.head, BASELINE)))
    return cross_validate(material.dataset, splits, material.class_names, config, heads)


def _metrics(
    evaluations: Mapping[str, Mapping[str, Evaluation]], cross_validation: CrossValidation | None
) -> dict[str, Any]:
    metrics: dict[str, Any] = {
        part: {name: evaluation.as_dict() for name, evaluation in by_head.items()}
        for part, by_head in evaluations.items()
    }
    return metrics | ({"folds": cross_validation.as_dict()} if cross_validation else {})


def _describe_grouping(split: Split, videos: Sequence[LabeledVideo]) -> str:
    """Where the split comes from; of one that the labels give, whether it divides groups."""
    if not any(video.split for video in videos):
        return split.grouping
    parts_of: dict[str, set[str]] = defaultdict(set)
    for name, part in (("train", split.train), ("val", split.val), ("test", split.test)):
        for video in part:
            if video.group:
                parts_of[video.group].add(name)
    num_divided = sum(len(parts) > 1 for parts in parts_of.values())
    if num_divided:
        return f"{split.grouping}; {num_divided} of {count_of(len(parts_of), 'group')} in more than one part"
    return f"{split.grouping}; no group in more than one part" if parts_of else split.grouping


def _predictions(
    split: Split, logits: Mapping[str, Mapping[str, NDArray[np.float32]]], class_names: Sequence[str]
) -> Iterator[PredictionRow]:
    for part, by_head in logits.items():
        for name, rows in by_head.items():
            for values in prediction_values(name, getattr(split, part), rows, class_names):
                yield PredictionRow(split=part, **values)


def _split_rows(store: FeatureStore, split: Split) -> list[SplitRow]:
    return [
        SplitRow(video.video_id, video.label, part, video.group or "", store.info(video.video_id).size_bytes)
        for part, videos in (("train", split.train), ("val", split.val), ("test", split.test))
        for video in videos
    ]
