"""Fit the classifier of a run: its members, then the weights with which they are fused."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from vidpipe.backbones.image import choose_device
from vidpipe.config import TrainConfig
from vidpipe.datasets.sequences import SequenceDataset, Subsets
from vidpipe.heads.fusion import Fusion, MemberHeads
from vidpipe.heads.heads import Head, LinearHead, build_head
from vidpipe.heads.inputs import resolve_input
from vidpipe.heads.members import Member
from vidpipe.runs.tables import Epoch
from vidpipe.training.fit import Callbacks, Checkpoint, compute_logits, fit_head
from vidpipe.training.linear import fit_joined

__all__ = [
    "FittedClassifier",
    "Watched",
    "Weights",
    "compute_member_logits",
    "fit_classifier",
    "fit_member",
    "label_epoch",
]

NEURAL_WEIGHT = 0.3
"""The weight of a neural member's log-probabilities; that of a linear member is 1."""


@dataclass(frozen=True)
class Weights:
    """How the members of a classifier are fused."""

    values: tuple[float, ...]
    """One for each member."""
    temperature: float


@dataclass(frozen=True)
class FittedClassifier:
    """A classifier, and the epochs of its fit."""

    fusion: Fusion
    history: tuple[Epoch, ...]
    """Of all members, with their names."""

    @property
    def weights(self) -> Weights:
        """How its members are fused."""
        return Weights(tuple(self.fusion.weights.tolist()), float(self.fusion.temperature))


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
    weights: Weights | None = None,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> FittedClassifier:
    """Fit each member to the training set, then find the weights of their fusion.

    Args:
        members: from `vidpipe.heads.members.plan_members`.
        subsets: `train` and `val`, with all streams; val may be empty.
        config: the settings.
        watch: called with each member before its fit.
        max_epochs: by name of a member, the number of epochs after which its fit ends; None for early stopping.
        weights: how to fuse the members; None finds it on the training set.
        on_stage: called with what is done beside the fits of the members.

    Returns:
        The classifier and its epochs.

    Raises:
        TrainingError: a loss is not finite.
    """
    fitted, history = list[MemberHeads](), list[Epoch]()
    for member in members:
        watched = watch(member)
        heads, epochs = fit_member(
            member,
            subsets,
            config,
            callbacks=watched.callbacks,
            resume_from=watched.resumed,
            max_epochs=None if max_epochs is None else max_epochs[member.name],
        )
        watched.finish()
        fitted.append(heads)
        history += [label_epoch(epoch, member) for epoch in epochs]
    found = weights or find_weights(members)
    fusion = Fusion(fitted, found.values, found.temperature)
    return FittedClassifier(fusion.to(choose_device(config.device)).eval(), tuple(history))


def find_weights(members: Sequence[Member]) -> Weights:
    """Return the weights of the members' log-probabilities."""
    if len(members) == 1:
        return Weights((1.0,), 1.0)
    values = tuple(1.0 if member.is_linear else NEURAL_WEIGHT for member in members)
    return Weights(values, sum(values))


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
    trainings = [subsets["train"].stream(stream) for stream in member.streams]
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
