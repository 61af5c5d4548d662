"""Fit a head to the training set: a linear head by logistic regression, neighbours at once, others by AdamW."""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from vidpipe.backbones.image import choose_device
from vidpipe.config import TrainConfig
from vidpipe.datasets.sequences import SequenceDataset, Subsets
from vidpipe.errors import TrainingError, first_few
from vidpipe.heads.heads import Ensemble, Head, LinearHead, NeighboursHead, ProjectedHead, RecurrentHead, build_head
from vidpipe.heads.inputs import resolve_input
from vidpipe.heads.motion import step_mask
from vidpipe.runs.tables import Epoch
from vidpipe.training.augmentation import augment, mix
from vidpipe.training.linear import fit_linear
from vidpipe.training.neighbours import fit_neighbours

__all__ = [
    "Callbacks",
    "Checkpoint",
    "compute_logits",
    "compute_uncalibrated_logits",
    "fit_head",
    "load_optimiser",
    "make_optimiser",
    "optimiser_tensors",
    "resolve_steps",
    "train_epoch",
    "unprefixed",
]


BATCH_SIZES = (16, 64)
"""The smallest and the largest by default, a twelfth of the videos in between."""
BATCHES_PER_EPOCH = 12
MAX_EPOCHS, MIN_EPOCHS, MAX_STEPS = 60, 10, 6000
"""By default 60 epochs; fewer where they would take more than 6,000 steps, but at least 10."""
MAX_RESIDENT_SHARE = 0.4
"""Of a GPU's free memory, for the features of a training or validation set."""
MAX_COMPONENT_ROWS = 4000
"""Enough for 64 components."""


@dataclass
class Checkpoint:
    """All that is needed to continue the training of a head, or of a member of an ensemble, after an epoch."""

    member: int = 0
    best_loss: float = math.inf
    best_epoch: int = 0
    history: list[Epoch] = field(default_factory=list)
    """All epochs so far, of all members."""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    """`head.*`, `best.*`, `optimiser.INDEX.*`"""


@dataclass(frozen=True)
class Callbacks:
    """Functions to call while a head is fitted."""

    on_epoch: Callable[[Epoch], None] = lambda epoch: None
    """Called after each epoch."""
    on_checkpoint: Callable[[Callable[[], Checkpoint]], None] = lambda make: None
    """Called after each epoch with a function that makes a checkpoint, as making one takes time."""


def fit_head(
    name: str,
    subsets: Subsets,
    config: TrainConfig,
    *,
    callbacks: Callbacks | None = None,
    resume_from: Checkpoint | None = None,
    max_epochs: int | None = None,
) -> tuple[Head, list[Epoch]]:
    """Build a head and fit it to the training set.

    The validation set gives a neural head its number of epochs and its temperature. A linear head's temperature comes
    from folds of the training set.

    Args:
        name: one of `vidpipe.heads.heads.HEADS`.
        subsets: `train` and `val`; val may be empty. The head learns from each person, where rows are of single people.
        config: the settings.
        callbacks: called while the head is fitted.
        resume_from: where to continue the fit of a neural head.
        max_epochs: number of epochs after which the fit of a neural head ends; its learning rates are still those of
            `config.epochs`.

    Returns:
        The fitted head and its epochs; a linear head has one.

    Raises:
        TrainingError: the loss is not finite.
    """
    callbacks, given = callbacks or Callbacks(), subsets
    subsets = {subset: subsets[subset].by_person() for subset in ("train", "val")}
    device, config = choose_device(config.device), resolve_input(config, subsets["train"].kind)
    config = resolve_steps(config, len(subsets["train"]))
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        training = subsets["train"]
        head = build_head(name, training.dim, training.num_classes, config, num_cells=training.num_cells)
        head.motion.fit((batch.features, batch.lengths) for batch in subsets["train"].batches(32))
        subsets = {subset: _reduced(head, subsets[subset]) for subset in ("train", "val")}
        if isinstance(head, LinearHead | NeighboursHead):
            _fit_at_once(head, subsets["train"], config)
            history = [Epoch(1, *_loss_and_top1(head, given["train"]), *_validate(head, given["val"]))]
            callbacks.on_epoch(history[0])
        else:
            _fit_components(head, subsets["train"])
            state, num_epochs = resume_from or Checkpoint(), max_epochs or config.epochs or MAX_EPOCHS
            history = _fit_members(head.to(device), subsets, config, callbacks, state, num_epochs)
        if config.calibrate and len(subsets["val"]) and not isinstance(head, LinearHead):
            head.calibrate(compute_uncalibrated_logits(head, given["val"]), given["val"].class_index)
    return head.to(device).eval(), history


def _fit_at_once(head: LinearHead | NeighboursHead, training: SequenceDataset, config: TrainConfig) -> None:
    if isinstance(head, NeighboursHead):
        fit_neighbours(head, training)
    else:
        fit_linear(head, training, config)


def resolve_steps(config: TrainConfig, num_videos: int) -> TrainConfig:
    """Return a config with a batch size and a number of epochs.

    Args:
        config: its own numbers, if it has them, stay.
        num_videos: of the training set.

    Returns:
        The config; many videos have larger batches and fewer epochs.
    """
    smallest, largest = BATCH_SIZES
    batch_size = config.batch_size or min(largest, max(smallest, num_videos // BATCHES_PER_EPOCH))
    epochs = config.epochs or min(MAX_EPOCHS, max(MIN_EPOCHS, MAX_STEPS * batch_size // max(1, num_videos)))
    return replace(config, batch_size=batch_size, epochs=epochs)


def _recurrent(head: Head) -> list[RecurrentHead]:
    """The recurrent heads that project what they see: the head itself, or the members of an ensemble."""
    heads = head.heads if isinstance(head, Ensemble) else [head]
    return [one for one in heads if isinstance(one, RecurrentHead) and one.components is not None]


@torch.no_grad()
def _fit_components(head: Head, training: SequenceDataset) -> None:
    """Fit the components of recurrent heads, on some rows of the training set."""
    recurrent = _recurrent(head)
    if not recurrent:
        return
    rows: list[Tensor] = []
    for batch in training.batches(32, order=torch.randperm(len(training))):
        rows.append(head.motion(batch.features, batch.lengths)[step_mask(batch.features, batch.lengths)])
        if sum(map(len, rows)) >= MAX_COMPONENT_ROWS:
            break
    for one in recurrent:
        assert one.components is not None
        one.components.fit(torch.cat(rows)[:MAX_COMPONENT_ROWS])


@torch.no_grad()
def _projected(head: Head, subsets: Subsets) -> tuple[Head, Subsets]:
    """The head as it is trained and what it is given: where it projects features, these are projected once."""
    if not _recurrent(head):
        return head, subsets
    (recurrent,) = _recurrent(head)
    device = next(head.parameters()).device

    def project(features: Tensor, lengths: Tensor) -> Tensor:
        return recurrent.project(recurrent.motion(features.to(device), lengths)).cpu()

    return ProjectedHead(recurrent), {name: subset.mapped(project) for name, subset in subsets.items()}


def _reduced(head: Head, dataset: SequenceDataset) -> SequenceDataset:
    """The dataset, or only the mean of each sequence where the head needs no more."""
    return dataset.averaged() if head.needs_mean_only else dataset


def _fit_members(
    head: Head, subsets: Subsets, config: TrainConfig, callbacks: Callbacks, state: Checkpoint, num_epochs: int
) -> list[Epoch]:
    """Train the head, or the members of an ensemble one after the other; `state` is where to start."""
    members = head.heads if isinstance(head, Ensemble) else [head]
    if state.tensors:
        head.load_state_dict(unprefixed(state.tensors, "head."))
    for number in range(state.member, len(members)):
        if number > state.member:
            state = Checkpoint(number, history=state.history)
        _fit_member(head, members[number], subsets, config, callbacks, state, num_epochs)
    return state.history


def _fit_member(
    whole: Head,
    head: Head,
    subsets: Subsets,
    config: TrainConfig,
    callbacks: Callbacks,
    state: Checkpoint,
    num_epochs: int,
) -> None:
    """Train until the validation loss stops falling, then restore the weights of the lowest loss.

    An epoch's random numbers depend on the seed, the member and the epoch only, so a resumed training gives the same
    model as an uninterrupted one.
    """
    trained, subsets = _projected(head, subsets)
    device = next(head.parameters()).device
    training, validation = (_near(subsets[subset], device) for subset in ("train", "val"))
    optimiser = make_optimiser(head, config)
    best = unprefixed(state.tensors, "best.") or copy.deepcopy(head.state_dict())
    load_optimiser(optimiser, state.tensors)
    first = 1 + max((epoch.epoch for epoch in state.history if epoch.member == state.member), default=0)
    for number in range(first, num_epochs + 1):
        if len(validation) and number - 1 - state.best_epoch >= config.patience:
            break
        shuffle = np.random.default_rng((config.seed, state.member, number))
        torch.manual_seed(int(shuffle.integers(2**62)))
        _set_lr(optimiser, config, number)
        loss, top1 = train_epoch(trained, training, optimiser, config, _order(training, config, shuffle))
        val_loss, val_top1 = _validate(trained, validation)
        epoch = Epoch(number, loss, top1, val_loss, val_top1, state.member)
        state.history.append(epoch)
        if epoch.val_loss is None or epoch.val_loss < state.best_loss:
            state.best_loss = math.inf if epoch.val_loss is None else epoch.val_loss
            state.best_epoch, best = number, copy.deepcopy(head.state_dict())
        callbacks.on_epoch(epoch)
        callbacks.on_checkpoint(partial(_checkpoint, state, whole, best, optimiser))
    head.load_state_dict(best)


def _near(dataset: SequenceDataset, device: torch.device) -> SequenceDataset:
    """The dataset, in the memory of a GPU if it fits: padding and copying each batch takes longer than a step there."""
    if device.type != "cuda" or not len(dataset):
        return dataset
    free_bytes, _ = torch.cuda.mem_get_info(device)
    return dataset.resident_on(device) if dataset.size_bytes < MAX_RESIDENT_SHARE * free_bytes else dataset


def _checkpoint(
    state: Checkpoint, head: Head, best: Mapping[str, Tensor], optimiser: torch.optim.Optimizer
) -> Checkpoint:
    tensors = {f"head.{name}": tensor for name, tensor in head.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
    tensors |= optimiser_tensors(optimiser)
    return Checkpoint(state.member, state.best_loss, state.best_epoch, list(state.history), tensors)


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the state of an optimiser as tensors `optimiser.INDEX.NAME`, for a checkpoint."""
    states = optimiser.state_dict()["state"]
    return {f"optimiser.{index}.{name}": its for index, values in states.items() for name, its in values.items()}


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser the state that `optimiser_tensors` returned; without such tensors, do nothing."""
    states: dict[int, dict[str, Tensor]] = {}
    for name, tensor in unprefixed(tensors, "optimiser.").items():
        index, _, what = name.partition(".")
        states.setdefault(int(index), {})[what] = tensor
    if states:
        optimiser.load_state_dict({**optimiser.state_dict(), "state": states})


def unprefixed(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def make_optimiser(head: Head, config: TrainConfig) -> torch.optim.Optimizer:
    """Return AdamW, fused into one pass over the parameters: a step on the CPU takes 8 % less time."""
    return torch.optim.AdamW(head.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)


def _set_lr(optimiser: torch.optim.Optimizer, config: TrainConfig, epoch: int) -> None:
    """Set an epoch's learning rate; `cosine` falls from lr to 0 over the epochs. Loshchilov & Hutter 2017."""
    num_epochs = config.epochs or MAX_EPOCHS
    share = (1 + math.cos(math.pi * (epoch - 1) / num_epochs)) / 2 if config.schedule == "cosine" else 1.0
    for group in optimiser.param_groups:
        group["lr"] = config.lr * share


def _order(training: SequenceDataset, config: TrainConfig, shuffle: np.random.Generator) -> Tensor:
    """(N,) the order of an epoch: each video once, or drawn so that all classes are equally frequent."""
    if config.balance != "sampling":
        return torch.from_numpy(shuffle.permutation(len(training)))
    share = training.class_weights()[training.class_index].double().numpy()
    return torch.from_numpy(shuffle.choice(len(training), len(training), p=share / share.sum()))


def train_epoch(
    head: Head, training: SequenceDataset, optimiser: torch.optim.Optimizer, config: TrainConfig, order: Tensor
) -> tuple[float, float]:
    """Train one epoch.

    Args:
        head: the head.
        training: the training set.
        optimiser: of the head's parameters.
        config: the settings.
        order: (N,) the videos' numbers in the order of the epoch.

    Returns:
        The mean loss, and the share of correct predictions, during the epoch.

    Raises:
        TrainingError: a loss is not finite; the message names videos of that step.
    """
    head.train()
    device = next(head.parameters()).device
    weights = training.class_weights().to(device) if config.balance == "weights" else None
    total_loss, num_correct = torch.zeros(2, dtype=torch.float64, device=device)
    batch_size = resolve_steps(config, len(training)).batch_size or 1
    for number, batch in enumerate(training.batches(batch_size, order=order)):
        batch = augment(batch.to(device), config)
        targets = one_hot(batch.class_index, head.num_classes).float()  # (N,) -> (N, K)
        batch, targets = mix(batch, targets, config.mixup)
        logits = head(batch.features, batch.lengths)  # (N, T, D) -> (N, K)
        loss = cross_entropy(logits, targets, weight=weights, label_smoothing=config.label_smoothing)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        if not torch.isfinite(loss + norm):
            raise _not_finite(training, order[number * batch_size :][:batch_size], head)
        optimiser.step()
        total_loss += loss.detach() * len(logits)
        num_correct += (logits.argmax(dim=1) == batch.class_index).sum()
    return float(total_loss) / len(training), float(num_correct) / len(training)


def _not_finite(training: SequenceDataset, chosen: Tensor, head: Head) -> TrainingError:
    """Name the videos of a step whose own logits are not finite, or all of the step where there are none."""
    names = [training.videos[number].video_id for number in chosen.tolist()]
    logits = compute_logits(head, training.select(names))
    bad = [name for name, row in zip(names, logits, strict=True) if not row.isfinite().all()]
    which = first_few(bad or names)
    return TrainingError(
        f"the loss is not finite in a step with {which}; look at these videos' features, or lower --lr"
    )


def _validate(head: Head, validation: SequenceDataset) -> tuple[float, float] | tuple[None, None]:
    """Loss and top-1; None without validation videos."""
    return _loss_and_top1(head, validation) if len(validation) else (None, None)


def _loss_and_top1(head: Head, dataset: SequenceDataset) -> tuple[float, float]:
    logits = compute_logits(head, dataset)
    correct = logits.argmax(dim=1) == dataset.class_index
    return float(cross_entropy(logits, dataset.class_index)), float(correct.float().mean())


@torch.inference_mode()
def compute_logits(head: Head, dataset: SequenceDataset, batch_size: int = 256) -> Tensor:
    """Apply a head to the videos of a dataset; of several people in a video, it is the mean.

    Args:
        head: the head.
        dataset: N videos, at least 1.
        batch_size: videos at a time.

    Returns:
        (N, K) calibrated logits, on the CPU, in the order of the dataset.
    """
    head.eval()
    people = dataset.by_person()
    seen = _reduced(head, people)
    device = head.temperature.device
    order = seen.by_length()
    batches = (batch.to(device) for batch in seen.batches(batch_size, order=order))
    logits = torch.cat([head(batch.features, batch.lengths).cpu() for batch in batches])[order.argsort()]
    return logits if people is dataset else people.mean_by_video(logits)


def compute_uncalibrated_logits(head: Head, dataset: SequenceDataset) -> Tensor:
    """Return the logits (N, K) of a dataset's videos without the head's temperature, as `Head.calibrate` needs them."""
    return compute_logits(head, dataset) * float(head.temperature)
