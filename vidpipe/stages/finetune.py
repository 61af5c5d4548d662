"""Stage 2b: a run and its videos -> a run whose backbone is fine-tuned, beside the frozen one on the same split."""

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidpipe.backbones.downloads import sha256 as file_sha256
from vidpipe.backbones.image import choose_device
from vidpipe.backbones.stream import Stream
from vidpipe.backbones.table import find_backbone
from vidpipe.backbones.weights import FINE_TUNED
from vidpipe.config import ExtractConfig, FinetuneConfig, TrainConfig
from vidpipe.datasets.sequences import SequenceDataset, Subsets, read_subsets
from vidpipe.datasets.splits import SUBSETS, Split, describe_grouping, make_split
from vidpipe.datasets.streams import kind_of
from vidpipe.datasets.warning_collector import collect_warnings
from vidpipe.errors import InterruptedTrainingError, UsageError, unknown_name
from vidpipe.features.key import FeatureKey
from vidpipe.features.store import FeatureStore
from vidpipe.finetuning.augmentation import ClipChanges, may_flip
from vidpipe.finetuning.auxiliary import AuxiliaryClassifiers, auxiliary_of
from vidpipe.finetuning.backbone import TunedBackbone
from vidpipe.finetuning.fit import CheckpointFile, Clips, Fit, FitProgress, num_parts
from vidpipe.finetuning.frames import FrameCache, match_videos
from vidpipe.finetuning.memory import check_memory
from vidpipe.finetuning.ranks import Ranks, open_ranks
from vidpipe.heads.calibration import MIN_CALIBRATION_VIDEOS, fit_temperature
from vidpipe.heads.fusion import Fusion
from vidpipe.heads.members import BASELINE, FUSED, Member, baseline_members
from vidpipe.records import FeatureSequence, LabeledVideo, VideoFile
from vidpipe.runs.fine_tuning import FineTuning, compare_top1
from vidpipe.runs.plots import plot_confusion, plot_history
from vidpipe.runs.run import Run, RunMember, RunStream, save_run
from vidpipe.runs.run_folder import TrainingFolder, open_training_folder
from vidpipe.runs.tables import Epoch
from vidpipe.stages.train import prediction_rows, split_rows
from vidpipe.training.caveats import result_caveats, split_caveats
from vidpipe.training.fusion import compute_member_logits, fit_classifier
from vidpipe.training.scoring import Scores, score_classifiers
from vidpipe.training.threads import use_threads

__all__ = ["FinetuneResult", "finetune"]

logger = logging.getLogger(__name__)

Scored = Mapping[str, Mapping[str, Scores]]
"""By subset, then by classifier or part."""


@dataclass(frozen=True)
class FinetuneResult:
    """A run, and how the two backbones compare."""

    run: Run
    split: Split
    fine_tuning: FineTuning
    scores: Mapping[str, Mapping[str, Scores]]
    """By backbone (`frozen`, `fine-tuned`), then by subset: what its classifier predicts."""


@dataclass(frozen=True)
class _Side:
    """One of the two backbones with its classifier."""

    key: FeatureKey
    fusion: Fusion
    baseline: Fusion
    subsets: Subsets
    scores: Scored
    weights: Path | None = None
    """The file of the fine-tuned weights."""

    @property
    def own_scores(self) -> dict[str, Scores]:
        """The classifier on each subset."""
        return {subset: by_name[self.fusion.name] for subset, by_name in self.scores.items()}

    @property
    def rank(self) -> tuple[float, float]:
        """Top-1 on the validation set, then its log loss: greater is better."""
        evaluation = self.own_scores["val"].evaluation
        return evaluation.top1, -evaluation.log_loss


def finetune(
    run: Run,
    videos: Sequence[VideoFile],
    run_path: Path,
    *,
    config: FinetuneConfig,
    extract: ExtractConfig | None = None,
    resume: bool = False,
    overwrite: bool = False,
    on_video: Callable[[int, int], None] = lambda done, total: None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> FinetuneResult:
    """Train the backbone of a run together with its heads, and keep it where it is better on the validation set.

    The heads begin as they are fitted to features of the frozen backbone, on the training set alone: those of the run
    may know its test videos.

    Args:
        run: with one image or clip backbone, or `config.stream` names one.
        videos: files, among them all videos of the run.
        run_path: the folder to write; it is replaced as a whole at the end.
        config: the settings.
        extract: how to decode, and the weights of the run's backbone.
        resume: continue an interrupted fine-tuning from its checkpoint.
        overwrite: replace the run, or the interrupted training, that is there.
        on_video: called after each video that is decoded, with how many are done, and of how many.
        on_epoch: called after each epoch.

    Returns:
        The new run, and the comparison; the same in each process that `torchrun` started.

    Raises:
        UsageError: the run cannot be fine-tuned, a setting does not go with it, or a folder cannot be used.
        InputError: a video of the run is missing, has changed, or cannot be decoded.
        RunError: the folder cannot be written, or its checkpoint is of another training.
        WeightsError: the weights of the backbone are not available.
        LabelsError: no validation set can be drawn.
        TrainingError: a loss is not finite, or the memory is too small.
        InterruptedTrainingError: Ctrl-C; the last checkpoint is kept.
    """
    name = _choose_stream(run, config.stream)
    members = _members_of(run, name)
    key, extract = run.keys[name], extract or ExtractConfig()
    if extract.weights == "random":
        key = replace(key, weights="random")
    files = match_videos({row.video: row.size_bytes for row in run.splits}, videos, owner=str(run.path))
    stream = Stream.of_key(key, weights=extract.weights, owner=str(run.path))
    _warn_of_random(key, config)
    changes = ClipChanges(stream.spec.preprocessing, config, flips=may_flip(config.flip, run.class_names))
    with open_ranks(uses_gpu=choose_device(config.device).type == "cuda") as ranks:
        backbone = TunedBackbone(stream, config)  # before anything is decoded: a wrong stage or device is refused
        cache = _frame_cache(stream, config, run_path)
        with _open_folder(run_path, ranks, resume=resume, overwrite=overwrite) as folder:
            try:
                with use_threads(config.threads or torch.get_num_threads()):
                    if ranks.is_first:
                        cache.fill(files, max_gb=config.cache_gb, config=extract, on_video=on_video)
                    job = _Job(run, name, members, key, files, cache, backbone, changes, config, folder, resume, ranks)
                    result = job.run(on_epoch)
                    ranks.wait()  # before the first process removes what the others read
            except KeyboardInterrupt:
                raise _interrupted(folder, cache) from None
        if not config.cache and ranks.is_first:
            cache.remove()
    return result


def _frame_cache(stream: Stream, config: FinetuneConfig, run_path: Path) -> FrameCache:
    """The cache that the config names, or one beside the new run."""
    beside = run_path.resolve().with_name(f"{run_path.name}.frames")
    return FrameCache(
        Path(config.cache) if config.cache else beside,
        stream.spec,
        stream.key.resolve_sampling(),
        frames_per_segment=config.frames_per_segment,
        decoding=stream.key.resolve_decoding(),
    )


def _warn_of_random(key: FeatureKey, config: FinetuneConfig) -> None:
    if key.weights == "random" and (config.unfreeze != "all" or config.batch_norm != "train"):
        logger.warning(
            "%s has random weights, and nothing of it has learned yet: train all of it with --unfreeze all "
            "--batch-norm train",
            key.backbone,
        )


@contextmanager
def _open_folder(run_path: Path, ranks: Ranks, *, resume: bool, overwrite: bool) -> Iterator[TrainingFolder]:
    """Lock the training folder in the first process; the others use it."""
    if ranks.is_first:
        with open_training_folder(run_path, resume=resume, overwrite=overwrite) as folder:
            yield folder
    else:
        yield TrainingFolder(run_path)


def _choose_stream(run: Run, name: str | None) -> str:
    """The stream to fine-tune."""
    if run.timelines or run.config.targets == "rows":
        raise UsageError(
            f"{run.path}: learned from intervals of long videos, and finetune takes runs of whole clips; cut the "
            "videos into clips, and train on these"
        )
    if name is not None and name not in run.keys:
        raise UsageError(f"--stream: {unknown_name('stream', name, run.keys)}")
    learned = [its for its, key in run.keys.items() if kind_of(key) in ("image", "clip")]
    if name is None and len(run.keys) > 1:
        raise UsageError(
            f"{run.path} has {len(run.keys)} streams ({', '.join(run.keys)}), and one of them is fine-tuned; name it "
            f"with --stream{f' {learned[0]}' if learned else ''}"
        )
    chosen = name or next(iter(run.keys))
    key = run.keys[chosen]
    if chosen not in learned:
        raise UsageError(f"{chosen} has no weights to train; extract and train with an image or a clip backbone")
    if key.regions is not None or key.grid > 1:
        what = f"--regions {key.regions.get('kind')}" if key.regions is not None else f"--grid {key.grid}"
        raise UsageError(f"{run.path}: extracted with {what}, and finetune takes whole frames; extract without it")
    if key.precision != "full":
        raise UsageError(f"{run.path}: extracted with --precision half; extract with --precision full, and train again")
    return chosen


def _members_of(run: Run, stream: str) -> tuple[Member, ...]:
    """The members of the run's classifier that see this stream alone, and can learn with it."""
    members = tuple(one.member for one in run.members if one.streams == (stream,))
    learning = tuple(member for member in members if member.head != "neighbours")
    if not learning:
        reason = "keeps videos, and passes no gradient" if members else "sees several streams at once"
        raise UsageError(
            f"{run.path}: its head on {stream} {reason}; train a run with --head statistics,lstm --fusion late"
        )
    return learning


def _interrupted(folder: TrainingFolder, cache: FrameCache) -> InterruptedTrainingError:
    remedy = "The same command with --resume continues from there" if folder.has_checkpoint else "Start again"
    what = f"the last checkpoint is in {folder.path}" if folder.has_checkpoint else "there is no checkpoint yet"
    return InterruptedTrainingError(f"stopped; {what}, and the decoded frames are in {cache.root}. {remedy}")


@dataclass(frozen=True)
class _Job:
    """A fine-tuning whose frames are in the cache."""

    old: Run
    stream: str
    members: tuple[Member, ...]
    key: FeatureKey
    files: Sequence[VideoFile]
    cache: FrameCache
    backbone: TunedBackbone
    changes: ClipChanges
    config: FinetuneConfig
    folder: TrainingFolder
    resume: bool
    ranks: Ranks

    def run(self, on_epoch: Callable[[Epoch], None]) -> FinetuneResult:
        """Fit the heads to frozen features, fine-tune, compare, and write the run."""
        with collect_warnings() as warnings:
            split = self._split()
        if self.ranks.is_first:
            self._check_memory(self._clips(split.train))
        warnings += self._warn_of_groups()
        frozen_store = self._extract(self.key, self.cache.path / f"features-{_hash(self.key.as_json())}")
        frozen = self._frozen_side(read_subsets({self.stream: frozen_store}, split))
        fusion, auxiliary = self._adapted_heads(split) or deepcopy(frozen.fusion), self._auxiliary()
        fit = Fit(self.backbone, fusion, self.stream, self.changes, self.config, auxiliary=auxiliary, ranks=self.ranks)
        progress = fit.run(
            self._clips(split.train),
            self._clips(split.val),
            CheckpointFile(
                self.folder.path / "checkpoint.safetensors",
                self._about(split),
                seconds=self.config.checkpoint_seconds,
                resume=self.resume,
            ),
            on_epoch=on_epoch,
        )
        tuned = self._tuned_side(fit, split)
        kept = tuned if tuned.rank > frozen.rank else frozen
        found = self._compare(frozen, tuned, kept, progress)
        run = self._make_run(split, kept, found, warnings)
        if self.ranks.is_first:
            self.folder.put_in_place(partial(_write_run, run, split, kept, self._history(progress), frozen_store))
        return FinetuneResult(run, split, found, {"frozen": frozen.own_scores, "fine-tuned": tuned.own_scores})

    # The videos

    def _split(self) -> Split:
        """The split of the run; where it has no validation set, one is drawn from its training set."""
        rows = [LabeledVideo(one.video, one.label, one.split, one.group or None, "the run") for one in self.old.splits]
        has_val = any(row.split == "val" for row in self.old.splits)
        split = make_split(
            rows, val_fraction=0.0 if has_val else self.config.val_fraction, test_fraction=0.0, seed=self.config.seed
        )
        if not split.val:
            raise UsageError(
                f"{self.old.path}: no group is left to validate on; more groups, or more videos, are needed"
            )
        return split

    def _check_memory(self, training: Clips) -> None:
        """Refuse steps that do not fit into the memory."""
        check_memory(
            self.backbone,
            [len(training.open(number).rows) for number in range(len(training))],
            config=self.config,
            num_parts=num_parts(self.config, self.backbone.device),
            num_processes=self.ranks.count,
        )

    def _warn_of_groups(self) -> list[str]:
        """A warning where the videos have no groups."""
        if any(row.group for row in self.old.splits):
            return []
        warning = (
            f"{self.old.path}: its labels have no groups; fine-tuning overfits sources, and videos of one source may "
            "be in both the training and the validation set: train the run with --group-by"
        )
        logger.warning(warning)
        return [warning]

    def _clips(self, videos: Sequence[LabeledVideo]) -> Clips:
        by_id = {file.id: file for file in self.files}
        index_of = {name: index for index, name in enumerate(self.old.class_names)}
        files = [by_id[video.video_id] for video in videos]
        return Clips(
            [video.video_id for video in videos],
            torch.tensor([index_of[video.label] for video in videos], dtype=torch.int64),
            lambda number: self.cache.open(files[number]),
        )

    def _extract(self, key: FeatureKey, path: Path) -> FeatureStore:
        """A store with what the backbone, as it is now, computes of the frames in the cache."""
        if self.ranks.is_first:
            self._fill_store(FeatureStore.create(path, key))
        self.ranks.wait()
        return FeatureStore.open(path)

    def _fill_store(self, store: FeatureStore) -> None:
        lacking = [file for file in self.files if file.id not in store]
        with store.lock(), store.writer(max_videos=256, max_seconds=60.0) as writer:
            for file in lacking:
                clip = self.cache.open(file)
                features = self.backbone.extract(self.changes.centre_rows(clip)).numpy()
                stored = features.astype(np.dtype(store.key.dtype))
                writer.add(FeatureSequence(file.id, stored, clip.rows, clip.info))

    # The two sides

    @property
    def _train_config(self) -> TrainConfig:
        return replace(self.old.config, device=self.config.device, threads=self.config.threads)

    def _frozen_side(self, subsets: dict[str, SequenceDataset]) -> _Side:
        logger.info("fitting the heads to features of the frozen backbone")
        with use_threads(1):  # small heads are fastest with one, and do not depend on the machine
            fusion = fit_classifier(self.members, subsets, self._train_config).fusion
        return self._side(self.key, fusion, subsets)

    # From random weights

    def _auxiliary(self) -> AuxiliaryClassifiers | None:
        """The auxiliary classifiers that help a network to learn from random weights, where it has some."""
        if self.key.weights != "random" or self.config.unfreeze != "all":
            return None
        builder, num_classes = find_backbone(self.key.backbone).builder, len(self.old.class_names)
        return auxiliary_of(self.backbone.network, builder, num_classes=num_classes, seed=self.config.seed)

    def _adapted_heads(self, split: Split) -> Fusion | None:
        """Heads for random weights whose batch normalisation has seen the videos; None where nothing is adapted.

        Features of random weights may be a thousand times as large as those that the network gives once it normalises.
        """
        batches = self._clips(split.train).statistics_batches(self.changes, self.config)
        if self.key.weights != "random" or not self.backbone.adapt_norms(batches):
            return None
        key = replace(self.key, weights="random, adapted")
        store = self._extract(key, self.folder.path / "features-adapted")
        with use_threads(1):
            subsets = read_subsets({self.stream: store}, split)
            return fit_classifier(self.members, subsets, self._train_config).fusion

    def _tuned_side(self, fit: Fit, split: Split) -> _Side:
        path = self.folder.path / FINE_TUNED
        if self.ranks.is_first:
            self.backbone.save(path)
        self.ranks.wait()
        key = replace(self.key, weights=file_sha256(path))
        store = self._extract(key, self.folder.path / f"features-{key.weights[:12]}")
        subsets = read_subsets({self.stream: store}, split)
        _calibrate(fit.fusion, subsets["val"])
        return self._side(key, fit.fusion.eval(), subsets, weights=path)

    def _side(
        self, key: FeatureKey, fusion: Fusion, subsets: dict[str, SequenceDataset], *, weights: Path | None = None
    ) -> _Side:
        with use_threads(1):
            baseline = fit_classifier(baseline_members([self.stream]), subsets, self._train_config).fusion
            scores = {
                subset: score_classifiers((fusion, baseline), subsets[subset])
                for subset in ("val", "test")
                if len(subsets[subset])
            }
        return _Side(key, fusion, baseline, subsets, scores, weights)

    def _compare(self, frozen: _Side, tuned: _Side, kept: _Side, progress: FitProgress) -> FineTuning:
        found = {
            subset: compare_top1(
                frozen.own_scores[subset].correct,
                tuned.own_scores[subset].correct,
                frozen.subsets[subset].units,
            )
            for subset in frozen.scores
        }
        return FineTuning(
            kept="fine-tuned" if kept is tuned else "frozen",
            stages=tuple(stage.name for stage in self.backbone.stages),
            num_parameters=self.backbone.num_parameters,
            num_epochs=len(progress.history),
            best_epoch=progress.best_epoch,
            seconds=round(progress.seconds, 1),
            val=found["val"],
            test=found.get("test"),
            settings=dataclasses.asdict(self.config),
        )

    # The run

    def _make_run(self, split: Split, kept: _Side, found: FineTuning, warnings: Sequence[str]) -> Run:
        caveats = (
            *found.caveats,
            *split_caveats(kept.subsets, self.old.leaks, has_folds=False),
            *result_caveats(kept.subsets, ("train",), kept.scores, None, kept.fusion),
        )
        metrics: dict[str, Any] = {
            subset: {name: its.evaluation.as_dict() for name, its in by_name.items()}
            for subset, by_name in kept.scores.items()
        }
        members = {one.member: one for one in self.old.members}
        weights = kept.fusion.weights.tolist()
        return Run(
            path=self.folder.run_path,
            config=self.old.config,
            class_names=self.old.class_names,
            streams=(RunStream(self.stream, kept.key, kept.subsets["train"].dim),),
            members=tuple(
                RunMember(one.streams, one.head, weight, members[one].inputs)
                for one, weight in zip(kept.fusion.members, weights, strict=True)
            ),
            metrics=metrics | {"fine_tuning": found.as_dict()},
            grouping=describe_grouping(split),
            learned_subsets=("train",),
            has_found_weights=self.old.has_found_weights,
            clip_seconds=self.old.clip_seconds,
            warnings=tuple(dict.fromkeys((*warnings, *caveats))),
        )

    def _history(self, progress: FitProgress) -> list[Epoch]:
        return [replace(epoch, stream=self.stream, head="fine-tuning") for epoch in progress.history]

    def _about(self, split: Split) -> dict[str, Any]:
        """What the training depends on."""
        settings = dataclasses.asdict(self.config)
        for name in ("cache", "cache_gb", "checkpoint_seconds", "checkpointing"):
            del settings[name]
        subsets = {subset: _hash(*(f"{video.video_id} {video.label}" for video in split[subset])) for subset in SUBSETS}
        return {
            "settings": settings,
            "threads": torch.get_num_threads(),
            "processes": self.ranks.count,
            "key": self.key.as_dict(),
            "members": [member.name for member in self.members],
            "train_config": _hash(str(self.old.config)),
            "subsets": subsets,
        }


def _hash(*texts: str) -> str:
    return sha256("\n".join(texts).encode("utf-8", "surrogateescape")).hexdigest()[:12]


def _calibrate(fusion: Fusion, validation: SequenceDataset) -> None:
    """Fit the temperature of the classifier to the validation set, if it has enough videos."""
    if len(validation) < MIN_CALIBRATION_VIDEOS:
        return
    logits = torch.stack([compute_member_logits(member, validation) for member in fusion.fitted.values()])
    temperature = fit_temperature(fusion.fuse(logits), validation.class_index)
    if len(fusion.members) > 1:
        fusion.temperature.mul_(temperature)
        return
    for head in next(iter(fusion.fitted.values())).heads:
        head.temperature.mul_(temperature)


def _write_run(
    run: Run, split: Split, kept: _Side, history: Sequence[Epoch], store: FeatureStore, folder: Path
) -> None:
    """Fill a run's folder."""
    named = {kept.fusion.name, *(member.name for member in kept.fusion.members), BASELINE}
    tables: dict[str, Sequence[Any]] = {
        "splits": list(split_rows(store, split)),
        "history": history,
        "predictions": list(prediction_rows(kept.scores, named)),
    }
    save_run(run, folder, classifiers={FUSED: kept.fusion, BASELINE: kept.baseline}, tables=tables)
    if kept.weights is not None:
        (folder / FINE_TUNED).write_bytes(kept.weights.read_bytes())
    plot_history(folder / "history.png", history)
    subset = "test" if "test" in kept.scores else "val"
    confusion = kept.scores[subset][run.classifier].evaluation.confusion
    plot_confusion(folder / "confusion.png", confusion, run.class_names, f"{run.classifier}, {subset} videos")
