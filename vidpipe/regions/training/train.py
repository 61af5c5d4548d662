"""Trains a detector on annotated frames, and writes its file."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from vidpipe.backbones.image import choose_device
from vidpipe.config import DetectorConfig
from vidpipe.errors import InterruptedTrainingError, LabelsError, UsageError, count_of
from vidpipe.regions.table import find_detector
from vidpipe.regions.trained import TrainedHeader, write_trained
from vidpipe.regions.training.coco import Annotations, read_annotations
from vidpipe.regions.training.examples import Examples, split_by_file
from vidpipe.regions.training.fit import Best, Step, fit_network
from vidpipe.regions.training.scoring import DetectorScores
from vidpipe.regions.training.start import load_start, starts_with_batch_norm
from vidpipe.regions.training.trainers import TRAINERS, Plan, Settings, Trainer, find_trainer

__all__ = ["DetectorTraining", "train_detector"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DetectorTraining:
    """A detector that is trained."""

    path: Path
    """Its file."""
    header: TrainedHeader
    num_train: int
    """Frames that it learned from."""
    num_val: int
    best_epoch: int
    metric: str
    """By which the best epoch was chosen: `box mAP` or `Dice`."""
    scores: DetectorScores
    """Of the validation frames in the best epoch, in pictures of the network's size."""


def train_detector(
    annotations: Path,
    folder: Path,
    output: Path,
    *,
    detector: str,
    config: DetectorConfig,
    val_annotations: Path | None = None,
    on_step: Callable[[Step], None] = lambda step: None,
) -> DetectorTraining:
    """Train a detector on annotated frames; the file appears when the training ends.

    Args:
        annotations: COCO JSON over frames of videos, or pictures.
        folder: of the videos and pictures.
        output: the .safetensors file to write.
        detector: its name.
        config: the settings.
        val_annotations: of the frames that choose the best epoch; None sets some videos aside.
        on_step: called after each batch and each epoch.

    Returns:
        The detector's file and its metrics.

    Raises:
        UsageError: the detector cannot be trained, or a setting does not go with it.
        LabelsError: the annotations do not fit the videos, or have not what the detector learns.
        InputError: there is one video only, and none to validate on.
        VideoError: a video or picture cannot be read.
        WeightsError: the weights to begin from are not available, or belong to another network.
        TrainingError: a loss is not finite.
        InterruptedTrainingError: Ctrl-C; the best epoch so far is written.
    """
    trainer, device = find_trainer(detector), choose_device(config.device)
    _check(trainer, detector, output, config)
    size = config.size or trainer.size
    classes, train, val = _read(annotations, val_annotations, folder, trainer, size, config)
    network, settings, is_pretrained = _build(trainer, _plan(detector, classes, size, train, config), config)
    header = TrainedHeader(detector, classes, size, settings.to_json())
    best = Best()
    try:
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            fit_network(
                network.to(device),
                trainer,
                train,
                val,
                classes=classes,
                config=config,
                is_pretrained=is_pretrained,
                best=best,
                on_step=on_step,
            )
    except KeyboardInterrupt:
        raise _interrupted(output, best, header, trainer.metric) from None
    write_trained(output, best.tensors, header)
    assert best.scores is not None
    return DetectorTraining(output, header, len(train), len(val), best.epoch, trainer.metric, best.scores)


def _check(trainer: Trainer, detector: str, output: Path, config: DetectorConfig) -> None:
    if output.suffix != ".safetensors":
        raise UsageError(f"{output}: the file of a detector ends in .safetensors")
    if not output.absolute().parent.is_dir():
        raise UsageError(f"{output}: there is no folder {output.absolute().parent}; make it first")
    if config.width != 1 and not trainer.has_width:
        several = ", ".join(name for name, one in TRAINERS.items() if one.has_width)
        raise UsageError(f"--width: {detector} has one width; others have several: {several}")
    if config.encoder != DetectorConfig().encoder and detector != "unet":
        raise UsageError(f"--encoder goes with unet, not with {detector}")
    if config.weights not in ("default", "random") and not Path(config.weights).is_file():
        raise UsageError(f"--weights {config.weights}: no such file; give a file, `default` or `random`")
    if config.size and config.size % 32:
        raise UsageError(f"--size {config.size}: a multiple of 32 is needed")


def _read(
    path: Path, val_path: Path | None, folder: Path, trainer: Trainer, size: int, config: DetectorConfig
) -> tuple[dict[int, str], Examples, Examples]:
    annotations = read_annotations(path)
    if val_path is None:
        train, val = split_by_file(annotations, config.val_fraction, seed=config.seed)
    else:
        train, val = annotations, read_annotations(val_path)
        _check_classes(train, val)
    logger.info(
        "reading %s to learn from, and %s to validate on",
        count_of(len(train.frames), "frame"),
        count_of(len(val.frames), "frame"),
    )
    read = [Examples.read(one, folder, size=size, learned=trainer.learned) for one in (train, val)]
    return dict(annotations.classes), read[0], read[1]


def _check_classes(train: Annotations, val: Annotations) -> None:
    if train.classes != val.classes:
        raise LabelsError(
            f"{val.path}: its categories are {', '.join(val.classes.values())}, and those of {train.path} are "
            f"{', '.join(train.classes.values())}; both need the same, with the same ids"
        )


def _plan(detector: str, classes: dict[int, str], size: int, train: Examples, config: DetectorConfig) -> Plan:
    batch_norm = starts_with_batch_norm(config.weights)
    return Plan(detector, tuple(classes), size, config.width, train.box_sizes(), config.encoder, batch_norm=batch_norm)


def _build(trainer: Trainer, plan: Plan, config: DetectorConfig) -> tuple[nn.Module, Settings, bool]:
    """The network, its settings, and whether it begins from weights."""
    try:
        settings = trainer.settings(plan)
    except ValueError as error:
        raise UsageError(f"{plan.detector}: {error}") from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = trainer.build(settings)
    return network, settings, load_start(find_detector(plan.detector), config.weights, network)


def _interrupted(output: Path, best: Best, header: TrainedHeader, metric: str) -> InterruptedTrainingError:
    if not best.exists:
        kept = f"; {output} is unchanged" if output.exists() else ""
        return InterruptedTrainingError(f"stopped in the first epoch; nothing is written{kept}")
    write_trained(output, best.tensors, header)
    return InterruptedTrainingError(
        f"stopped; {output} holds the best epoch so far, {best.epoch} (validation {metric} {best.score:.3f})"
    )
