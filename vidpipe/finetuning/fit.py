"""The training loop of fine-tuning: AdamW with a learning rate for each stage, EMA, early stopping, checkpoints.

All random numbers of a step depend on the seed, the epoch and the video only. So a training that was killed and resumed
gives the same model as one that was not, and a step may be divided into parts.
"""

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from vidpipe.config import FinetuneConfig
from vidpipe.errors import TrainingError
from vidpipe.finetuning.augmentation import ClipChanges
from vidpipe.finetuning.auxiliary import AuxiliaryClassifiers
from vidpipe.finetuning.backbone import TunedBackbone
from vidpipe.finetuning.frames import CachedClip
from vidpipe.finetuning.ranks import ONE_PROCESS, Ranks
from vidpipe.heads.fusion import Fusion
from vidpipe.runs.tables import Epoch
from vidpipe.training.checkpoints import check_about, read_checkpoint, write_checkpoint
from vidpipe.training.fit import load_optimiser, optimiser_tensors, unprefixed

__all__ = ["CheckpointFile", "Clips", "Fit", "FitProgress", "learning_rates", "num_parts"]

MAX_GRADIENT = 1.0
EMA_START = 10
"""Steps after which the decay of the moving average is about half of its own: the first weights count for little."""
STATISTICS_FRAMES = 512
"""From how many frames statistics of batch normalisation are computed."""


@dataclass(frozen=True)
class Clips:
    """Labelled videos, and how to read their frames."""

    names: Sequence[str]
    """N ids."""
    class_index: Tensor
    """(N,) int64"""
    open: Callable[[int], CachedClip]
    """Returns the frames of one of them by its number."""

    def __len__(self) -> int:
        return len(self.names)

    def statistics_batches(self, changes: ClipChanges, config: FinetuneConfig) -> Iterator[Tensor]:
        """Draw videos for statistics of batch normalisation: always the same ones.

        Args:
            changes: takes the crop that an extraction sees.
            config: `batch_size` and `seed`.

        Yields:
            The frames of a batch of videos, as `TunedBackbone.adapt_norms` takes them.
        """
        order = np.random.default_rng((config.seed, 0)).permutation(len(self))  # epochs count from 1
        num_frames = 0
        for batch in np.array_split(order, max(1, len(order) // config.batch_size)):  # none is of one video
            frames = torch.cat([changes.centre_rows(self.open(number)) for number in batch.tolist()])
            yield frames
            num_frames += len(frames)
            if num_frames >= STATISTICS_FRAMES:
                return


@dataclass
class FitProgress:
    """How far a training is; all of it is in a checkpoint."""

    epoch: int = 1
    """The current one."""
    step: int = 0
    """Steps that are done in this epoch."""
    loss: float = 0.0
    """Sum over the videos of this epoch so far."""
    num_correct: float = 0.0
    best_loss: float = math.inf
    best_epoch: int = 0
    history: list[Epoch] = field(default_factory=list)
    seconds: float = 0.0
    """Of training, in all processes that worked on it."""

    def as_json(self) -> str:
        """Return the progress as text."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the progress that `as_json` wrote."""
        return cls(**{**values, "history": [Epoch(**row) for row in values["history"]]})


class CheckpointFile:
    """The checkpoint of a fine-tuning: written aside and renamed.

    Args:
        path: the file.
        about: what the training depends on; a checkpoint of another training is refused.
        seconds: time between two checkpoints.
        resume: read the file where it is there.
    """

    def __init__(self, path: Path, about: Mapping[str, Any], *, seconds: float, resume: bool) -> None:
        self._path, self._about, self._seconds = path, json.dumps(about, sort_keys=True), seconds
        self._last_seconds = time.monotonic()
        self._resume = resume

    def read(self) -> tuple[FitProgress, dict[str, Tensor]]:
        """Return the progress and the tensors so far.

        Raises:
            RunError: the file is damaged, or of another training.

        Returns:
            The two; a training that starts has no tensors.
        """
        if not (self._resume and self._path.exists()):
            return FitProgress(), {}
        about, progress, tensors = read_checkpoint(self._path)
        check_about(self._path, about, json.loads(self._about))
        return FitProgress.from_dict(progress), tensors

    @property
    def is_due(self) -> bool:
        """Whether the last checkpoint is old enough."""
        return time.monotonic() - self._last_seconds >= self._seconds

    def write(self, progress: FitProgress, tensors: Mapping[str, Tensor]) -> None:
        """Write a checkpoint."""
        write_checkpoint(self._path, self._about, progress.as_json(), tensors)
        self._last_seconds = time.monotonic()


def learning_rates(config: FinetuneConfig, num_stages: int) -> list[float]:
    """Return the largest learning rate of each trained stage, the last stage first."""
    return [config.lr * config.lr_decay**number for number in range(num_stages)]


def num_parts(config: FinetuneConfig, device: torch.device) -> int:
    """Return into how many parts a step is divided: `--accumulate`, or what is fastest on the device.

    Args:
        config: the settings.
        device: on a CPU a part is one video, unless statistics are of the batch.

    Returns:
        The number of parts.
    """
    is_whole = device.type == "cuda" or config.batch_norm == "train"
    return config.accumulate or (1 if is_whole else config.batch_size)


class Fit:
    """A fine-tuning of a backbone with the heads of a fitted classifier.

    Args:
        backbone: some of whose stages learn.
        fusion: the classifier, fitted to features of the frozen backbone. It sees one stream.
        stream: the name of that stream.
        changes: of clips.
        config: the settings.
        auxiliary: classifiers that learn with the backbone, and are dropped afterwards.
        ranks: the processes that train together.
    """

    def __init__(
        self,
        backbone: TunedBackbone,
        fusion: Fusion,
        stream: str,
        changes: ClipChanges,
        config: FinetuneConfig,
        *,
        auxiliary: AuxiliaryClassifiers | None = None,
        ranks: Ranks = ONE_PROCESS,
    ) -> None:
        self._backbone, self.fusion, self._stream = backbone, fusion.to(backbone.device), stream
        self._changes, self._config, self._ranks = changes, config, ranks
        self._num_parts = num_parts(config, backbone.device)
        self._auxiliary = None if auxiliary is None else auxiliary.to(backbone.device)
        self._tensors = {f"backbone.{name}": one for name, one in backbone.tensors().items()}
        self._tensors |= {f"head.{name}": one for name, one in fusion.named_parameters()}
        if auxiliary is not None:
            self._tensors |= {f"auxiliary.{name}": one for name, one in auxiliary.state_dict(keep_vars=True).items()}
        ranks.copy_from_first(self._tensors.values())
        self._optimiser = torch.optim.AdamW(list(self._groups()))

    def run(
        self,
        training: Clips,
        validation: Clips,
        checkpoint: CheckpointFile,
        *,
        on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    ) -> FitProgress:
        """Train until the validation loss stops falling; the backbone and the heads end as at their best.

        Args:
            training: what it learns from.
            validation: what stops it, at least one video.
            checkpoint: continues a training that was killed.
            on_epoch: called after each epoch.

        Returns:
            The epochs, the best one and the time.

        Raises:
            TrainingError: a loss is not finite, or the memory is too small.
            RunError: the checkpoint is of another training.
        """
        progress, tensors = checkpoint.read()
        self._ranks.wait()  # before the first process writes another checkpoint
        average = unprefixed(tensors, "ema.") or _copies(self._tensors)
        best = unprefixed(tensors, "best.") or _copies(self._tensors)
        _assign(self._tensors, unprefixed(tensors, "now."))
        self._load_optimiser(tensors)
        average, best = (_on(self._backbone.device, its) for its in (average, best))
        num_steps = math.ceil(len(training) / self._config.batch_size)
        with torch.random.fork_rng():
            while progress.epoch <= self._config.epochs and not self._has_stopped(progress):
                started = time.monotonic()
                for batch in self._batches(training, progress):
                    self._set_learning_rates((progress.epoch - 1) * num_steps + progress.step, num_steps)
                    self._step(training, batch, progress)
                    self._average(average, (progress.epoch - 1) * num_steps + progress.step)
                    progress.step += 1
                    if self._ranks.is_first and checkpoint.is_due:
                        progress.seconds, started = progress.seconds + time.monotonic() - started, time.monotonic()
                        checkpoint.write(progress, self._state(average, best))
                self._finish_epoch(progress, training, validation, average, best)
                progress.seconds += time.monotonic() - started
                on_epoch(progress.history[-1])
            if self._ranks.is_first:
                checkpoint.write(progress, self._state(average, best))
        _assign(self._tensors, best)
        return progress

    def validate(self, clips: Clips) -> tuple[float, float]:
        """Return the loss and the top-1 of the classifier on videos, from the frames that an extraction sees."""
        logits = self.logits(clips)
        correct = logits.argmax(dim=1) == clips.class_index
        return float(cross_entropy(logits, clips.class_index)), float(correct.float().mean())

    @torch.no_grad()
    def logits(self, clips: Clips) -> Tensor:
        """Return the calibrated logits of videos, (N, K), on the CPU."""
        self.fusion.eval()
        rows = []
        for number in range(len(clips)):
            features = self._backbone.extract(self._changes.centre_rows(clips.open(number)))
            padded = {self._stream: (features[None].to(self._backbone.device), torch.tensor([len(features)]))}
            rows.append(self.fusion(padded).cpu())
        return torch.cat(rows)

    # A step

    def _load_optimiser(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the optimiser, each tensor in the memory layout of its parameter: sums depend on it."""
        load_optimiser(self._optimiser, tensors)
        for parameter, state in self._optimiser.state.items():
            for name, tensor in state.items():
                if tensor.shape == parameter.shape:
                    state[name] = torch.empty_like(parameter).copy_(tensor)

    def _groups(self) -> Iterator[dict[str, Any]]:
        """The parameters by learning rate; what scales and shifts has no weight decay."""
        rates = learning_rates(self._config, len(self._backbone.by_stage))
        stages = [*zip(rates, self._backbone.by_stage, strict=True)]
        heads = [one for head in (self.fusion, self._auxiliary) if head is not None for one in head.parameters()]
        for rate, parameters in [*stages, (self._config.head_lr, heads)]:
            for decay, chosen in (
                (self._config.weight_decay, [one for one in parameters if one.ndim >= 2]),
                (0.0, [one for one in parameters if one.ndim < 2]),
            ):
                if chosen:
                    yield {"params": chosen, "lr": rate, "largest_lr": rate, "weight_decay": decay}

    def _set_learning_rates(self, number: int, num_steps: int) -> None:
        """Rise to the largest rate, then fall to 0 as a cosine; `number` counts all steps from 0."""
        total = num_steps * self._config.epochs
        rising = round(self._config.warm_up * total)
        if number < rising:
            share = (number + 1) / rising
        else:
            share = (1 + math.cos(math.pi * (number - rising) / max(1, total - rising))) / 2
        for group in self._optimiser.param_groups:
            group["lr"] = group["largest_lr"] * share

    def _batches(self, training: Clips, progress: FitProgress) -> Iterator[list[int]]:
        """The batches of the current epoch that are still to come."""
        order = np.random.default_rng((self._config.seed, progress.epoch)).permutation(len(training))
        size = self._config.batch_size
        for start in range(progress.step * size, len(order), size):
            if self._is_alone(len(order) - start) and start:
                return  # it was in the batch before
            stop = len(order) if self._is_alone(len(order) - start - size) else start + size
            yield order[start:stop].tolist()

    def _is_alone(self, num_left: int) -> bool:
        """Whether a batch would be one video, of which statistics of batch normalisation say nothing."""
        return num_left == 1 and self._config.batch_norm == "train"

    def _step(self, training: Clips, batch: Sequence[int], progress: FitProgress) -> None:
        """Change the weights once."""
        self._backbone.set_training(True)
        self.fusion.train()
        self._optimiser.zero_grad()
        own = batch[self._ranks.number :: self._ranks.count]
        size = max(1, math.ceil(len(own) / self._num_parts))
        total, num_correct = 0.0, 0.0
        for start in range(0, len(own), size):
            loss, correct = self._backward(training, own[start : start + size], len(batch), progress.epoch)
            total, num_correct = total + loss, num_correct + correct
        parameters = [one for group in self._optimiser.param_groups for one in group["params"]]
        self._ranks.add_gradients(parameters)
        total, num_correct = self._ranks.add_numbers(total, num_correct)
        norm = nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT)
        if not math.isfinite(total) or not bool(norm.isfinite()):
            names = ", ".join(training.names[number] for number in batch[:3])
            raise TrainingError(f"the loss is not finite in a step with {names}; lower --lr or --head-lr")
        self._optimiser.step()
        self._backbone.set_training(False)
        progress.loss += total * len(batch)
        progress.num_correct += num_correct

    def _backward(self, training: Clips, part: Sequence[int], num_videos: int, epoch: int) -> tuple[float, float]:
        """Add the gradients of a part of a batch; return its share of the loss, and its number of correct videos."""
        torch.manual_seed(self._seed_of(epoch, part[0]))
        clips = [training.open(number) for number in part]
        lengths = torch.tensor([len(clip.rows) for clip in clips])
        if self._auxiliary is not None:
            self._auxiliary.clear()
        try:
            frames = [self._frames(clip, epoch, number) for clip, number in zip(clips, part, strict=True)]
            if self._config.checkpointing:
                sequences = [self._backbone.features(one) for one in frames]
            else:
                sequences = list(torch.split(self._backbone.features(torch.cat(frames)), lengths.tolist()))
            padded = {self._stream: (pad_sequence(sequences, batch_first=True), lengths)}
            truth = training.class_index[torch.tensor(part)].to(self._backbone.device)
            logits = [member(padded) for member in self.fusion.fitted.values()]  # M times (n, K)
            losses = [
                cross_entropy(one, truth, label_smoothing=self._config.label_smoothing, reduction="sum")
                for one in logits
            ]
            loss = torch.stack(losses).mean()
            if self._auxiliary is not None:
                loss = loss + self._auxiliary.loss(lengths, truth, label_smoothing=self._config.label_smoothing)
            loss = loss / num_videos
            loss.backward()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise self._out_of_memory(error, len(part), int(lengths.max())) from error
        fused = self.fusion.fuse(torch.stack(logits)).argmax(dim=1)
        return float(loss.detach()), float((fused == truth).sum())

    def _out_of_memory(self, error: RuntimeError, num_videos: int, num_rows: int) -> Exception:
        """A message with what needs less memory; another error stays as it is."""
        if "alloc" not in str(error) and "out of memory" not in str(error):
            return error
        fewer = (
            f"--accumulate {self._num_parts * num_videos} takes one video at a time"
            if num_videos > 1
            else "--checkpointing needs less memory"
            if not self._config.checkpointing
            else "a smaller --unfreeze, or a run with fewer --num-frames, needs less"
        )
        return TrainingError(f"too little memory for {num_videos} × {num_rows} frames at once; {fewer}")

    def _frames(self, clip: CachedClip, epoch: int, number: int) -> Tensor:
        """A clip as the backbone sees it in this epoch: frames at random, changed at random."""
        seed = self._seed_of(epoch, number)
        index = torch.from_numpy(clip.draw(np.random.default_rng(seed)))
        shown, place = torch.unique(index, return_inverse=True)
        return self._changes.draw(clip.pictures[shown], seed)[place]

    def _seed_of(self, epoch: int, number: int) -> int:
        return int(np.random.default_rng((self._config.seed, epoch, number)).integers(2**62))

    # An epoch

    @torch.no_grad()
    def _average(self, average: Mapping[str, Tensor], number: int) -> None:
        """Move the average towards the weights; `number` counts all steps from 0."""
        decay = min(self._config.ema, (1 + number) / (EMA_START + number)) if self._config.ema else 0.0
        for name, tensor in self._tensors.items():
            if tensor.is_floating_point():
                average[name].lerp_(tensor, 1 - decay)
            else:
                average[name].copy_(tensor)

    def _finish_epoch(
        self,
        progress: FitProgress,
        training: Clips,
        validation: Clips,
        average: Mapping[str, Tensor],
        best: Mapping[str, Tensor],
    ) -> None:
        """Validate the average, and keep it where it is the best so far.

        The average of statistics of batch normalisation is not the statistics of the averaged weights, so these are
        computed anew (Wu and Johnson 2021).
        """
        weights, num_videos = _copies(self._tensors), len(training)
        _assign(self._tensors, average)
        self._backbone.adapt_norms(training.statistics_batches(self._changes, self._config))
        found = self.validate(validation) if self._ranks.is_first else (0.0, 0.0)
        loss, top1 = self._ranks.add_numbers(*found)
        progress.history.append(
            Epoch(progress.epoch, progress.loss / num_videos, progress.num_correct / num_videos, loss, top1)
        )
        if loss < progress.best_loss:
            progress.best_loss, progress.best_epoch = loss, progress.epoch
            _assign(best, self._tensors)
        _assign(self._tensors, weights)
        progress.epoch, progress.step, progress.loss, progress.num_correct = progress.epoch + 1, 0, 0.0, 0.0

    def _has_stopped(self, progress: FitProgress) -> bool:
        return progress.step == 0 and progress.epoch - 1 - progress.best_epoch >= self._config.patience

    def _state(self, average: Mapping[str, Tensor], best: Mapping[str, Tensor]) -> dict[str, Tensor]:
        named = {"now": self._tensors, "ema": average, "best": best}
        return {f"{kind}.{name}": one for kind, its in named.items() for name, one in its.items()} | optimiser_tensors(
            self._optimiser
        )


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def _on(device: torch.device, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in tensors.items()}


@torch.no_grad()
def _assign(tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, value in values.items():
        tensors[name].copy_(value)
