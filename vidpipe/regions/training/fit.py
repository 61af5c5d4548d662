"""The training loop of all detectors: AdamW, a learning rate that rises and falls, and the best epoch by validation."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vidpipe.config import DetectorConfig
from vidpipe.errors import TrainingError
from vidpipe.regions.detections import Detections
from vidpipe.regions.training.augmentation import augment
from vidpipe.regions.training.coco import as_coco
from vidpipe.regions.training.examples import Examples
from vidpipe.regions.training.scoring import DetectorScores, score_contents
from vidpipe.regions.training.trainers import Trainer

__all__ = ["Best", "Step", "fit_network", "score_network"]

_WARM_UP = 0.1
"""The share of the steps in which the learning rate rises."""
_WEIGHT_DECAY = 1e-4
_MAX_GRADIENT = 10.0


@dataclass(frozen=True)
class Step:
    """How far a training is."""

    epoch: int
    """From 1."""
    num_epochs: int
    batch: int
    """Batches done in this epoch."""
    num_batches: int
    loss: float
    """Mean of the epoch so far."""
    score: float | None = None
    """Of the validation set; known after the last batch of an epoch."""


@dataclass
class Best:
    """The best epoch so far."""

    epoch: int = 0
    """0: no epoch is complete."""
    score: float = -1.0
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    scores: DetectorScores | None = None

    @property
    def exists(self) -> bool:
        """Whether an epoch is complete."""
        return self.epoch > 0


def fit_network(
    network: nn.Module,
    trainer: Trainer,
    train: Examples,
    val: Examples,
    *,
    classes: Mapping[int, str],
    config: DetectorConfig,
    is_pretrained: bool,
    best: Best,
    on_step: Callable[[Step], None],
) -> None:
    """Fit a network to annotated frames.

    Args:
        network: on its device.
        trainer: how it is trained.
        train: what it learns from.
        val: what chooses the best epoch.
        classes: their names.
        config: the settings.
        is_pretrained: whether it begins from weights: then it learns more slowly by default, and batch normalisation
            keeps its statistics, as batches are small.
        best: holds the best epoch, also where this function is interrupted.
        on_step: called after each batch and each epoch.

    Raises:
        TrainingError: a loss is not finite.
    """
    rng = np.random.default_rng(config.seed)
    learning_rate = config.learning_rate or (1e-4 if is_pretrained else 1e-3)
    num_batches = len(_batch_starts(len(train), config.batch_size))
    keeps_statistics = is_pretrained or min(len(train), config.batch_size) == 1
    optimiser = torch.optim.AdamW(
        [one for one in network.parameters() if one.requires_grad], learning_rate, weight_decay=_WEIGHT_DECAY
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, learning_rate, total_steps=config.epochs * num_batches + 1, pct_start=_WARM_UP, cycle_momentum=False
    )
    for epoch in range(1, config.epochs + 1):
        _set_training(network, keeps_statistics)
        losses: list[float] = []
        for pixels, truths in _batches(train, config.batch_size, rng, next(network.parameters()).device):
            losses.append(_take_step(network, trainer, optimiser, pixels, truths))
            schedule.step()
            on_step(Step(epoch, config.epochs, len(losses), num_batches, float(np.mean(losses))))
        scores = score_network(network, trainer, val, classes=classes, batch_size=config.batch_size)
        score = _headline(scores, trainer)
        if score > best.score or score == 0 == best.score:  # while nothing is found, the later epoch is the better one
            best.epoch, best.score, best.scores = epoch, score, scores
            best.tensors = {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
        on_step(Step(epoch, config.epochs, num_batches, num_batches, float(np.mean(losses)), score))
        if best.score > 0 and epoch - best.epoch >= config.patience:
            return


def _set_training(network: nn.Module, keeps_statistics: bool) -> None:
    network.train()
    for module in network.modules():
        if keeps_statistics and isinstance(module, _BatchNorm):
            module.eval()


def _batch_starts(num_examples: int, batch_size: int) -> range:
    """A last batch of one example is left out: batch normalisation cannot learn from it."""
    return range(0, max(1, num_examples - (batch_size > 1)), batch_size)


def _batches(
    examples: Examples, batch_size: int, rng: np.random.Generator, device: torch.device
) -> Iterator[tuple[Tensor, list[Detections]]]:
    """Yield the examples in random order, altered at random, a batch at a time."""
    order = rng.permutation(len(examples))
    for start in _batch_starts(len(order), batch_size):
        chosen = order[start : start + batch_size]
        altered = [augment(examples.pictures[index], examples.truth(index), rng) for index in chosen]
        pictures = torch.from_numpy(np.stack([picture for picture, _ in altered]))
        yield pictures.to(device).float() / 255, [truth for _, truth in altered]


def _take_step(
    network: nn.Module,
    trainer: Trainer,
    optimiser: torch.optim.Optimizer,
    pixels: Tensor,
    truths: Sequence[Detections],
) -> float:
    """Change the weights once, and return the loss before."""
    optimiser.zero_grad()
    loss = trainer.loss(network, pixels, truths)
    value = float(loss.detach())
    if not math.isfinite(value):
        raise TrainingError(f"the loss is {value}; choose a lower --learning-rate")
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(network.parameters(), _MAX_GRADIENT)
    optimiser.step()
    return value


def score_network(
    network: nn.Module, trainer: Trainer, examples: Examples, *, classes: Mapping[int, str], batch_size: int
) -> DetectorScores:
    """Compare what a network finds with the truth, in square pictures.

    Args:
        network: of the trainer; it is set to evaluation mode.
        trainer: how it is trained.
        examples: the truth.
        classes: their names.
        batch_size: of pictures.

    Returns:
        The metrics.
    """
    detector = trainer.detector(network.eval())
    starts = range(0, len(examples), batch_size)
    found = [
        one for start in starts for one in detector.detect(np.asarray(examples.pictures[start : start + batch_size]))
    ]
    names = [frame.name for frame in examples.frames]
    truths = (examples.truth(index) for index in range(len(examples)))
    expected = as_coco(zip(names, truths, strict=True), classes, scores=False)
    return score_contents(expected, as_coco(zip(names, found, strict=True), classes, scores=True))


def _headline(scores: DetectorScores, trainer: Trainer) -> float:
    if trainer.metric == "Dice":
        return scores.overlap.dice if scores.overlap else 0.0
    return max(0.0, scores.boxes.map)  # -1 where the validation set has no objects
