"""Fit the classifier of a run: its members, then the weights with which they are fused."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from vidpipe.backbones.image import choose_device
from vidpipe.config import TrainConfig
from vidpipe.datasets.sequences import SequenceDataset, Subsets
from vidpipe.heads.calibration import MIN_CALIBRATION_VIDEOS
from vidpipe.heads.fusion import Fusion, MemberHeads
from vidpipe.heads.heads import Head, LinearHead, build_head
from vidpipe.heads.inputs import resolve_input
from vidpipe.heads.members import Member
from vidpipe.runs.tables import Epoch
from vidpipe.training.fit import Callbacks, Checkpoint, compute_logits, fit_head
from vidpipe.training.fusion_weights import SINGLE, CrossFitted, FusionWeights, find_weights
from vidpipe.training.linear import MAX_CROSS_FITTED_VIDEOS, fit_joined, quiet_about_few_videos

__all__ = [
    "FittedClassifier",
    "Watched",
    "compute_member_logits",
    "cross_fit",
    "fit_classifier",
    "fit_member",
    "label_epoch",
]

NUM_FOLDS = 3


@dataclass(frozen=True)
class FittedClassifier:
    """A classifier, and the epochs of its fit."""

    fusion: Fusion
    history: tuple[Epoch, ...]
    """Of all members, with their names."""

    weights: FusionWeights
    """How its members are fused."""


@dataclass(frozen=True)
class Watched:
    """What happens while a member is fitted."""

    callbacks: Callbacks = field(default_factory=Callbacks)
    resumed: Checkpoint | None = None
    """Where to continue."""
    finish: Callable[[], None] = lambda: None
    """Called when the member is fitted."""


def fit_classifier(
    members: Sequence[Member],
    subsets: Subsets,
    config: TrainConfig,
    *,
    watch: Callable[[Member], Watched] = lambda member: Watched(),
    max_epochs: Mapping[str, int] | None = None,
    weights: FusionWeights | None = None,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> FittedClassifier:
    """Fit each member to the training set, then find the weights of their fusion.

    Args:
        members: from `vidpipe.heads.members.plan_members`.
        subsets: `train` and `val`, with all streams; val may be empty.
        config: the settings.
        watch: called with each member before its fit.
        max_epochs: by name of a member, the number of epochs after which its fit ends; None for early stopping.
        weights: how to fuse the members; None finds it on folds of the training set.
        on_stage: called with what is done beside the fits of the members.

    Returns:
        The classifier and its epochs.

    Raises:
        TrainingError: a loss is not finite.
    """
    is_fused = len(members) > 1
    if is_fused and weights is None:
        on_stage("while finding the weights of the fusion")
        weights = find_weights(cross_fit(members, subsets["train"], config), members=members)
    fitted, history = list[MemberHeads](), list[Epoch]()
    for member in members:
        watched = watch(member)
        heads, epochs = fit_member(
            member,
            subsets,
            replace(config, calibrate=False) if is_fused else config,
            callbacks=watched.callbacks,
            resume_from=watched.resumed,
            max_epochs=None if max_epochs is None else max_epochs[member.name],
        )
        watched.finish()
        fitted.append(heads)
        history += [label_epoch(epoch, member) for epoch in epochs]
    weights = weights or SINGLE
    if is_fused:
        _set_temperatures(fitted, weights)
    fusion = Fusion(fitted, weights.values, 1 / weights.scale)
    return FittedClassifier(fusion.to(choose_device(config.device)).eval(), tuple(history), weights)


def _set_temperatures(members: Sequence[MemberHeads], weights: FusionWeights) -> None:
    for member, temperature in zip(members, weights.temperatures, strict=True):
        for head in member.heads:
            head.temperature.fill_(temperature)


def cross_fit(members: Sequence[Member], training: SequenceDataset, config: TrainConfig) -> CrossFitted:
    """Fit each member on folds of the training set by group, and apply it to the videos that it has not learned from.

    With more than 2,000 videos there is one fold, a third of them.

    Args:
        members: M members.
        training: the training set, with all streams.
        config: the settings.

    Returns:
        The logits of these videos.

    Raises:
        TrainingError: a loss is not finite.
    """
    names, logits, folds = list[int](), list[Tensor](), list[int]()
    uncalibrated = replace(config, calibrate=False)
    ids = training.video_ids
    for number, (others, inside) in enumerate(_folds(training)):
        learned, unseen = (training.select(ids[index] for index in indices) for indices in (others, inside))
        subsets = {"train": learned, "val": training.select([])}
        fitted = [fit_member(member, subsets, uncalibrated)[0] for member in members]
        logits.append(torch.stack([compute_member_logits(one, unseen) for one in fitted], dim=1))  # (n, M, K)
        names += inside
        folds += [number] * len(inside)
    chosen = training.select(ids[index] for index in names)
    none = torch.empty(0, len(members), training.num_classes)
    return CrossFitted(torch.cat([none, *logits]), chosen.class_index, chosen.units, torch.tensor(folds))


def _folds(training: SequenceDataset) -> Iterator[tuple[list[int], list[int]]]:
    """The numbers of the other videos and of its own, for each fold; without videos whose class is in no other fold."""
    from sklearn.model_selection import StratifiedGroupKFold

    truth, units = training.class_index.numpy(), training.units
    num_folds = min(NUM_FOLDS, len(set(units)))
    if num_folds < 2 or len(training) < MIN_CALIBRATION_VIDEOS:
        return
    splitter = StratifiedGroupKFold(num_folds, shuffle=True, random_state=0)
    with quiet_about_few_videos():
        folds = list(splitter.split(truth, truth, units))
    for others, inside in folds[:1] if len(training) > MAX_CROSS_FITTED_VIDEOS else folds:
        known = inside[np.isin(truth[inside], truth[others])]
        if len(known) and len(np.unique(truth[others])) > 1:
            yield others.tolist(), known.tolist()


def fit_member(
    member: Member,
    subsets: Subsets,
    config: TrainConfig,
    *,
    callbacks: Callbacks | None = None,
    resume_from: Checkpoint | None = None,
    max_epochs: int | None = None,
) -> tuple[MemberHeads, list[Epoch]]:
    """Fit one member; the arguments are those of `vidpipe.training.fit.fit_head`.

    Args:
        member: the member.
        subsets: `train` and `val`, with all streams.
        config: the settings.
        callbacks: called while it is fitted.
        resume_from: where to continue the fit of a neural head.
        max_epochs: number of epochs after which the fit of a neural head ends.

    Returns:
        The fitted member and its epochs; a linear one has one.

    Raises:
        TrainingError: the loss is not finite.
    """
    if len(member.streams) > 1:
        return _fit_joined(member, subsets, config, callbacks or Callbacks())
    seen = {subset: subsets[subset].stream(member.streams[0]) for subset in ("train", "val")}
    head, epochs = fit_head(
        member.head, seen, config, callbacks=callbacks, resume_from=resume_from, max_epochs=max_epochs
    )
    return MemberHeads(member, [head]), epochs


def _fit_joined(
    member: Member, subsets: Subsets, config: TrainConfig, callbacks: Callbacks
) -> tuple[MemberHeads, list[Epoch]]:
    """Fit one linear classifier to the joined statistics of several streams."""
    people = subsets["train"].by_person()
    trainings = [people.stream(stream) for stream in member.streams]
    heads = [_linear_head(member.head, training, config) for training in trainings]
    fit_joined(
        heads,
        [_reduced(head, one) for head, one in zip(heads, trainings, strict=True)],
        resolve_input(config, trainings[0].kind),
    )
    device = choose_device(config.device)
    fitted = MemberHeads(member, [head.to(device).eval() for head in heads])
    val = _loss_and_top1(fitted, subsets["val"]) if len(subsets["val"]) else (None, None)
    epoch = Epoch(1, *_loss_and_top1(fitted, subsets["train"]), *val)
    callbacks.on_epoch(epoch)
    return fitted, [epoch]


def _linear_head(name: str, training: SequenceDataset, config: TrainConfig) -> LinearHead:
    """A linear head whose `motion` is fitted."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        head = build_head(name, training.dim, training.num_classes, config, kind=training.kind)
    if not isinstance(head, LinearHead):
        raise TypeError(f"{name} is no linear head")
    head.motion.fit((batch.features, batch.lengths) for batch in training.batches(32))
    return head


def _reduced(head: Head, dataset: SequenceDataset) -> SequenceDataset:
    return dataset.averaged() if head.needs_mean_only else dataset


def _loss_and_top1(member: MemberHeads, dataset: SequenceDataset) -> tuple[float, float]:
    logits = compute_member_logits(member, dataset)
    correct = logits.argmax(dim=1) == dataset.class_index
    return float(cross_entropy(logits, dataset.class_index)), float(correct.float().mean())


def compute_member_logits(member: MemberHeads, dataset: SequenceDataset, *, batch_size: int = 256) -> Tensor:
    """Return the calibrated logits (N, K) of a member for the videos of a dataset with all streams."""
    return member.apply_heads(lambda stream, head: compute_logits(head, dataset.stream(stream), batch_size))


def label_epoch(epoch: Epoch, member: Member) -> Epoch:
    """Return an epoch with the names of its member's streams and head."""
    return replace(epoch, stream="+".join(member.streams), head=member.head)
