"""Fitting a head to the training part: by logistic regression where it is linear, else by AdamW with early stopping."""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from vidpipe.backbones.image import choose_device
from vidpipe.config import TrainConfig
from vidpipe.datasets.sequences import SequenceDataset
from vidpipe.errors import TrainingError, first_few
from vidpipe.heads.heads import Ensemble, Head, LinearHead, build_head
from vidpipe.runs.run import BASELINE
from vidpipe.runs.tables import Epoch
from vidpipe.training.augmentation import augment, mix
from vidpipe.training.calibration import MIN_CALIBRATION_VIDEOS, temperature_of_least_loss
from vidpipe.training.linear import fit_linear

__all__ = [
    "Checkpoint",
    "Watcher",
    "compute_logits",
    "fit_head",
    "fit_temperature",
    "make_optimiser",
    "seen_by",
    "train_epoch",
]


@dataclass
class Checkpoint:
    """All that training one member of a head needs to go on after an epoch."""

    member: int = 0
    best_loss: float = math.inf
    best_epoch: int = 0
    history: list[Epoch] = field(default_factory=list)
    """Of all members so far."""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    """`head.*`, `best.*`, `optimiser.INDEX.*`"""


@dataclass(frozen=True)
class Watcher:
    """Who is told of each epoch, and of each state from which training can go on."""

    on_epoch: Callable[[Epoch], None] = lambda epoch: None
    on_checkpoint: Callable[[Callable[[], Checkpoint]], None] = lambda make: None
    """Is given a function, since a state is costly to gather."""
    resume: Checkpoint | None = None


def fit_head(
    name: str,
    parts: Mapping[str, SequenceDataset],
    num_classes: int,
    config: TrainConfig,
    watcher: Watcher | None = None,
    *,
    stop_after: int | None = None,
) -> tuple[Head, list[Epoch]]:
    """Build a head and fit it to `parts["train"]`.

    A neural head's epoch and temperature are chosen by `parts["val"]`; a linear head's temperature by folds of train.

    Args:
        name: of `HEADS`.
        parts: `train` and `val`; val may be empty.
        num_classes: K.
        config: the settings.
        watcher: told how it goes.
        stop_after: epochs after which a neural head's fit ends, while its schedule is that of `config.epochs`.

    Raises:
        TrainingError: the loss is not finite.
    """
    watcher = watcher or Watcher()
    device = choose_device(config.device)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        head = build_head(name, parts["train"].dim, num_classes, config)
        head.motion.fit((batch.features, batch.lengths) for batch in parts["train"].batches(32))
        seen = {part: seen_by(name, dataset) for part, dataset in parts.items()}
        if isinstance(head, LinearHead):
            fit_linear(head, seen["train"], config)
            validated = _loss_and_top1(head, seen["val"]) if len(seen["val"]) else (None, None)
            history = [Epoch(1, *_loss_and_top1(head, seen["train"]), *validated)]
            watcher.on_epoch(history[0])
        else:
            history = _fit_members(head.to(device), seen, config, watcher, stop_after or config.epochs)
            if config.calibrate:
                head.get_buffer("temperature").fill_(fit_temperature(head, seen["val"]))
    return head.to(device).eval(), history


def seen_by(name: str, dataset: SequenceDataset) -> SequenceDataset:
    """A data set as a head of that name sees it: the baseline has no use for more than the mean of each sequence."""
    return dataset.averaged() if name == BASELINE else dataset


def _fit_members(
    head: Head, parts: Mapping[str, SequenceDataset], config: TrainConfig, watcher: Watcher, num_epochs: int
) -> list[Epoch]:
    """Train the head, or one member of an ensemble after the other."""
    members = head.heads if isinstance(head, Ensemble) else [head]
    state = watcher.resume or Checkpoint()
    if state.tensors:
        head.load_state_dict(_unprefixed(state.tensors, "head."))
    for number in range(state.member, len(members)):
        if number > state.member:
            state = Checkpoint(number, history=state.history)
        _fit_member(head, members[number], parts, config, watcher, state, num_epochs)
    return state.history


def _fit_member(
    whole: Head,
    head: Head,
    parts: Mapping[str, SequenceDataset],
    config: TrainConfig,
    watcher: Watcher,
    state: Checkpoint,
    num_epochs: int,
) -> None:
    """Train until the validation loss stops falling, and go back to where it was lowest.

    The random numbers of an epoch come from the seed, the member and the epoch: what goes on is what never stopped.
    """
    training, validation = parts["train"], parts["val"]
    optimiser = make_optimiser(head, config)
    best = _unprefixed(state.tensors, "best.") or copy.deepcopy(head.state_dict())
    _load_optimiser(optimiser, state.tensors)
    first = 1 + max((epoch.epoch for epoch in state.history if epoch.member == state.member), default=0)
    for number in range(first, num_epochs + 1):
        if len(validation) and number - 1 - state.best_epoch >= config.patience:
            break
        shuffle = np.random.default_rng((config.seed, state.member, number))
        torch.manual_seed(int(shuffle.integers(2**62)))
        _set_lr(optimiser, config, number)
        loss, top1 = train_epoch(head, training, optimiser, config, _order(training, config, shuffle))
        validated = _loss_and_top1(head, validation) if len(validation) else (None, None)
        epoch = Epoch(number, loss, top1, validated[0], validated[1], state.member)
        state.history.append(epoch)
        if epoch.val_loss is None or epoch.val_loss < state.best_loss:
            state.best_loss = math.inf if epoch.val_loss is None else epoch.val_loss
            state.best_epoch, best = number, copy.deepcopy(head.state_dict())
        watcher.on_epoch(epoch)
        watcher.on_checkpoint(partial(_checkpoint, state, whole, best, optimiser))
    head.load_state_dict(best)


def _checkpoint(
    state: Checkpoint, head: Head, best: Mapping[str, Tensor], optimiser: torch.optim.Optimizer
) -> Checkpoint:
    tensors = {f"head.{name}": tensor for name, tensor in head.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
    for index, values in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": tensor for name, tensor in values.items()}
    return Checkpoint(state.member, state.best_loss, state.best_epoch, list(state.history), tensors)


def _load_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    states: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _unprefixed(tensors, "optimiser.").items():
        index, _, what = name.partition(".")
        states.setdefault(int(index), {})[what] = tensor
    if states:
        optimiser.load_state_dict({**optimiser.state_dict(), "state": states})


def _unprefixed(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def make_optimiser(head: Head, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW in one pass over the parameters, which takes a twelfth off a step on the CPU."""
    return torch.optim.AdamW(head.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)


def _set_lr(optimiser: torch.optim.Optimizer, config: TrainConfig, epoch: int) -> None:
    """cosine: from lr in the first epoch towards 0 after the last. Loshchilov & Hutter 2017."""
    share = (1 + math.cos(math.pi * (epoch - 1) / config.epochs)) / 2 if config.schedule == "cosine" else 1.0
    for group in optimiser.param_groups:
        group["lr"] = config.lr * share


def _order(training: SequenceDataset, config: TrainConfig, shuffle: np.random.Generator) -> Tensor:
    """(N,) the videos' numbers as an epoch takes them: each once, or the rarer classes as often as the others."""
    if config.balance != "sampling":
        return torch.from_numpy(shuffle.permutation(len(training)))
    share = training.class_weights()[training.class_index].double().numpy()
    return torch.from_numpy(shuffle.choice(len(training), len(training), p=share / share.sum()))


def train_epoch(
    head: Head, training: SequenceDataset, optimiser: torch.optim.Optimizer, config: TrainConfig, order: Tensor
) -> tuple[float, float]:
    """One pass; the mean loss and the share of right answers on the way.

    Raises:
        TrainingError: a loss is not finite; it names videos of that step.
    """
    head.train()
    device = next(head.parameters()).device
    weights = training.class_weights().to(device) if config.balance == "weights" else None
    total_loss, num_right = torch.zeros(2, dtype=torch.float64, device=device)
    for number, batch in enumerate(training.batches(config.batch_size, order=order)):
        batch = augment(batch.to(device), config)
        targets = one_hot(batch.class_index, head.num_classes).float()  # (N,) -> (N, K)
        batch, targets = mix(batch, targets, config.mixup)
        logits = head(batch.features, batch.lengths)  # (N, T, D) -> (N, K)
        loss = cross_entropy(logits, targets, weight=weights, label_smoothing=config.label_smoothing)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        if not torch.isfinite(loss + norm):
            raise _not_finite(training, order[number * config.batch_size :][: config.batch_size], head)
        optimiser.step()
        total_loss += loss.detach() * len(logits)
        num_right += (logits.argmax(dim=1) == batch.class_index).sum()
    return float(total_loss) / len(training), float(num_right) / len(training)


def _not_finite(training: SequenceDataset, chosen: Tensor, head: Head) -> TrainingError:
    """Names the videos of a step whose own logits are not finite; all of the step, where none alone is to blame."""
    logits = compute_logits(head, training.part(chosen.tolist()))
    bad = [number for number, row in zip(chosen.tolist(), logits, strict=True) if not row.isfinite().all()]
    names = [training.video_ids[number] for number in bad or chosen.tolist()]
    return TrainingError(
        f"the loss is not finite in a step with {first_few(names)}; look at these videos' features, or lower --lr"
    )


def _loss_and_top1(head: Head, dataset: SequenceDataset) -> tuple[float, float]:
    logits = compute_logits(head, dataset)
    right = logits.argmax(dim=1) == dataset.class_index
    return float(cross_entropy(logits, dataset.class_index)), float(right.float().mean())


@torch.inference_mode()
def compute_logits(head: Head, dataset: SequenceDataset, batch_size: int = 256) -> Tensor:
    """(N, K) logits of a data set's videos, in its order, on the CPU."""
    head.eval()
    device = next(head.parameters()).device
    order = dataset.by_length()
    batches = (batch.to(device) for batch in dataset.batches(batch_size, order=order))
    logits = torch.cat([head(batch.features, batch.lengths).cpu() for batch in batches])
    return logits[order.argsort()]


def fit_temperature(head: Head, unseen: SequenceDataset) -> float:
    """By what a head's logits have to be divided for the least loss on videos it has not learned from. Guo et al. 2017.

    Its own temperature where they are too few.
    """
    own = float(head.get_buffer("temperature"))
    if len(unseen) < MIN_CALIBRATION_VIDEOS:
        return own
    return temperature_of_least_loss(compute_logits(head, unseen) * own, unseen.class_index)
