"""Classifiers over a feature sequence: padded sequences and their lengths in, logits out.

Padding never changes a prediction; a test checks this for every head.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from vidpipe.config import SEEDLESS_HEADS, TrainConfig
from vidpipe.heads.calibration import MIN_CALIBRATION_VIDEOS, fit_temperature
from vidpipe.heads.inputs import resolve_input
from vidpipe.heads.motion import Motion, masked_mean, step_mask

__all__ = [
    "HEADS",
    "MIN_DIM_TO_PROJECT",
    "MIN_SCALE",
    "NEIGHBOUR_BANDWIDTH",
    "SEE_CELLS",
    "STATISTICS",
    "AttentionHead",
    "Components",
    "Ensemble",
    "Head",
    "LinearHead",
    "MeanHead",
    "NeighboursHead",
    "ProjectedHead",
    "RecurrentHead",
    "StatisticsHead",
    "TCNHead",
    "TransformerHead",
    "build_head",
    "time_thirds",
]

_Cell = type[nn.LSTM] | type[nn.GRU]

MIN_DIM_TO_PROJECT = 512
"""What a recurrent head sees is projected where it has more numbers: flow's 486 are not."""
MIN_SCALE = 1e-6
MIN_VARIANCE = 1e-30
"""The gradient of a square root at 0 is not finite, and a backbone is fine-tuned through it."""
NEIGHBOUR_COMPONENTS, NEIGHBOUR_BANDWIDTH = 64, 0.1
MIN_VOTE = 1e-4
"""Of a class without near videos."""


class Head(nn.Module, ABC):
    """A classifier over feature sequences. It holds all that a prediction needs: normalisation, weights, temperature.

    Args:
        motion: the transforms of the features that it classifies.
        num_classes: K.
    """

    needs_mean_only: ClassVar[bool] = False
    """Whether the mean of each sequence, as its only row, is enough to fit and to apply the head."""
    temperature: Tensor
    """() float32, the number that the logits are divided by."""

    def __init__(self, motion: Motion, num_classes: int) -> None:
        super().__init__()
        self.motion, self.num_classes = motion, num_classes
        self.register_buffer("temperature", torch.ones(()))

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Classify padded sequences.

        Args:
            features: (N, T, D) float; rows after a sequence's end are ignored. Where pictures have C cells,
                (N, T, C · D), the whole picture first.
            lengths: (N,) int64, on the CPU, each at least 1.

        Returns:
            Calibrated logits (N, K).
        """
        return self.classify(self.motion(features, lengths), lengths) / self.temperature

    def calibrate(self, logits: Tensor, truth: Tensor) -> None:
        """Fit the temperature to videos that the head has not learned from; fewer than 20 leave it unchanged.

        Args:
            logits: (N, K) of these videos, not yet divided by a temperature.
            truth: (N,) class indices.
        """
        if len(logits) >= MIN_CALIBRATION_VIDEOS:
            self.temperature.fill_(fit_temperature(logits, truth))

    @abstractmethod
    def classify(self, seen: Tensor, lengths: Tensor) -> Tensor:
        """Classify the output of `motion`: (N, T, M · D), or (N, T · C, M · D) of cells -> logits (N, K)"""


class Components(nn.Module):
    """The first P principal components of the rows that a head sees, all divided by one number.

    Args:
        dim: D of these rows.
        num_components: P.
    """

    weight: Tensor
    """(D, P)"""

    def __init__(self, dim: int, num_components: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(dim, num_components))

    def fit(self, rows: Tensor) -> None:
        """Find the components of rows (n, D) of mean 0; torch's random number generator is used."""
        size = min(self.weight.shape[1], *rows.shape)
        _, singular, basis = torch.svd_lowrank(rows, size, niter=3)
        self.weight.zero_()[:, :size] = basis / (singular.square().mean() / len(rows)).sqrt().clamp_min(MIN_SCALE)

    def forward(self, rows: Tensor) -> Tensor:
        """Project rows, (…, D) -> (…, P)"""
        projected: Tensor = rows @ self.weight
        return projected


class RecurrentHead(Head):
    """An LSTM or GRU over the packed sequence; it classifies the mean output.

    What it sees of a large feature is projected on principal components first: 60 clips do not determine 2,560 weights
    for each unit. Hochreiter & Schmidhuber 1997; Cho et al. 2014; over frozen image features: Donahue et al. 2015, Ng
    et al. 2015.
    """

    def __init__(
        self,
        motion: Motion,
        num_classes: int,
        config: TrainConfig,
        *,
        cell: _Cell,
        bidirectional: bool,
    ) -> None:
        super().__init__(motion, num_classes)
        is_projected = motion.dim > MIN_DIM_TO_PROJECT and config.components > 0
        self.components = Components(motion.dim, config.components) if is_projected else None
        self._jitter = config.jitter
        self.recurrent = cell(
            config.components if is_projected else motion.dim,
            config.hidden_size,
            config.num_layers,
            batch_first=True,
            bidirectional=bidirectional,
            dropout=config.dropout if config.num_layers > 1 else 0.0,
        )
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.hidden_size * (1 + bidirectional), num_classes)

    def project(self, seen: Tensor) -> Tensor:
        """Project the output of `motion` on the components, (N, T, M · D) -> (N, T, P); without them, as it is."""
        return seen if self.components is None else self.components(seen)

    def classify(self, seen: Tensor, lengths: Tensor) -> Tensor:
        """See `Head.classify`."""
        return self.classify_projected(self.project(seen), lengths)

    def classify_projected(self, projected: Tensor, lengths: Tensor) -> Tensor:
        """Classify the output of `project`: (N, T, P) -> logits (N, K)"""
        if self.training and self._jitter:
            projected = _jittered(projected, self._jitter)
        packed = pack_padded_sequence(self.dropout(projected), lengths.cpu(), batch_first=True, enforce_sorted=False)
        outputs, _ = pad_packed_sequence(self.recurrent(packed)[0], batch_first=True)  # (N, T, H)
        logits: Tensor = self.classifier(self.dropout(masked_mean(outputs, lengths)))  # (N, H) -> (N, K)
        return logits


class ProjectedHead(Head):
    """A recurrent head that is given what it sees: in training, features are transformed and projected only once.

    Args:
        head: the head, whose parameters these are.
    """

    def __init__(self, head: RecurrentHead) -> None:
        super().__init__(head.motion, head.num_classes)
        self.head = head

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Classify the output of `RecurrentHead.project`, (N, T, P); see `Head.forward`."""
        return self.classify(features, lengths) / self.head.temperature

    def classify(self, seen: Tensor, lengths: Tensor) -> Tensor:
        """See `RecurrentHead.classify_projected`."""
        return self.head.classify_projected(seen, lengths)


def _jittered(sequences: Tensor, strength: float) -> Tensor:
    """Scale each sequence (N, T, P) by a random number, and add a random row to all its steps."""
    num_sequences, _, dim = sequences.shape
    gain = (strength * torch.randn(num_sequences, 1, 1)).exp().to(sequences.device)
    return sequences * gain + strength * torch.randn(num_sequences, 1, dim).to(sequences.device)


class AttentionHead(Head):
    """Attention pooling: a weighted mean of the steps, with weights from a step's features and position.

    Where pictures have cells, each cell of each frame is a step, and its position is its time and its place.
    """

    def __init__(self, motion: Motion, num_classes: int, config: TrainConfig) -> None:
        super().__init__(motion, num_classes)
        self.project = nn.Linear(motion.dim, config.hidden_size)
        self.position = nn.Linear(2 * NUM_WAVES, config.hidden_size)
        if motion.num_cells > 1:
            self.place = nn.Linear(4 * NUM_WAVES, config.hidden_size)
            self.register_buffer("places", _places(motion.num_cells), persistent=False)
        self.score = nn.Linear(config.hidden_size, 1)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.hidden_size, num_classes)

    def classify(self, seen: Tensor, lengths: Tensor) -> Tensor:
        """See `Head.classify`."""
        num_cells = self.motion.num_cells  # C
        where = self.position(_positions(seen[:, ::num_cells], lengths))  # (N, T, H)
        if num_cells > 1:
            where = (where[:, :, None] + self.place(self.get_buffer("places"))).flatten(1, 2)  # -> (N, T · C, H)
        steps = torch.tanh(self.project(self.dropout(seen)) + where)  # (N, T · C, H)
        scores = self.score(steps).masked_fill(~step_mask(seen, lengths * num_cells)[:, :, None], -torch.inf)
        pooled = (scores.softmax(dim=1) * steps).sum(dim=1)  # (N, T · C, H) -> (N, H)
        logits: Tensor = self.classifier(self.dropout(pooled))
        return logits


class TCNHead(Head):
    """Two dilated convolutions over time, with a residual connection around the second. Bai, Kolter & Koltun 2018."""

    def __init__(self, motion: Motion, num_classes: int, config: TrainConfig) -> None:
        super().__init__(motion, num_classes)
        size = config.hidden_size
        self.first = nn.Conv1d(motion.dim, size, kernel_size=3, padding=1)
        self.second = nn.Conv1d(size, size, kernel_size=3, padding=2, dilation=2)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(size, num_classes)

    def classify(self, seen: Tensor, lengths: Tensor) -> Tensor:
        """See `Head.classify`."""
        mask = step_mask(seen, lengths)[:, None]  # (N, 1, T)
        # The mask clears the padding: the second convolution would read there what the first one wrote.
        steps = self.first(self.dropout(seen).transpose(1, 2)).relu() * mask  # (N, T, M · D) -> (N, H, T)
        steps = steps + self.second(self.dropout(steps)).relu()
        logits: Tensor = self.classifier(self.dropout(masked_mean(steps.transpose(1, 2), lengths)))
        return logits


class TransformerHead(Head):
    """A small encoder over the steps and their positions; it classifies the mean output. Vaswani et al. 2017."""

    def __init__(self, motion: Motion, num_classes: int, config: TrainConfig) -> None:
        super().__init__(motion, num_classes)
        size = 4 * -(-config.hidden_size // 4)  # four attention heads
        self.project = nn.Linear(motion.dim, size)
        self.position = nn.Linear(2 * NUM_WAVES, size)
        layer = nn.TransformerEncoderLayer(size, 4, 2 * size, config.dropout, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, config.num_layers, nn.LayerNorm(size), enable_nested_tensor=False)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(size, num_classes)

    def classify(self, seen: Tensor, lengths: Tensor) -> Tensor:
        """See `Head.classify`."""
        steps = self.project(self.dropout(seen)) + self.position(_positions(seen, lengths))  # (N, T, H)
        steps = self.encoder(steps, src_key_padding_mask=~step_mask(seen, lengths))
        logits: Tensor = self.classifier(self.dropout(masked_mean(steps, lengths)))
        return logits


class LinearHead(Head):
    """A linear classifier of statistics over time. Its fit is convex: every seed gives the same model."""

    def __init__(self, motion: Motion, num_classes: int, num_statistics: int) -> None:
        super().__init__(motion, num_classes)
        self.classifier = nn.Linear(motion.dim * num_statistics, num_classes)

    @abstractmethod
    def pool(self, seen: Tensor, lengths: Tensor) -> Tensor:
        """Compute the statistics: (N, T, M · D) -> (N, F)"""

    def classify(self, seen: Tensor, lengths: Tensor) -> Tensor:
        """See `Head.classify`."""
        logits: Tensor = self.classifier(self.pool(seen, lengths))  # (N, F) -> (N, K)
        return logits


class MeanHead(LinearHead):
    """A linear classifier of the mean feature. It ignores order and motion: the baseline for other heads."""

    needs_mean_only = True

    def __init__(self, motion: Motion, num_classes: int) -> None:
        super().__init__(motion, num_classes, 1)

    def pool(self, seen: Tensor, lengths: Tensor) -> Tensor:
        """See `LinearHead.pool`."""
        return masked_mean(seen, lengths)


class StatisticsHead(LinearHead):
    """A linear classifier of statistics over time of each transform; see `STATISTICS`."""

    def __init__(self, motion: Motion, num_classes: int, statistics: Sequence[str]) -> None:
        super().__init__(motion, num_classes, sum(STATISTICS[name][0] for name in statistics))
        self._statistics = [STATISTICS[name][1] for name in statistics]

    def pool(self, seen: Tensor, lengths: Tensor) -> Tensor:
        """See `LinearHead.pool`."""
        return torch.cat([statistic(seen, lengths) for statistic in self._statistics], dim=1)


class NeighboursHead(Head):
    """Votes of the labelled videos, each with the weight exp(cosine / bandwidth): only near ones count.

    It keeps the videos: their statistics over time, centred and scaled, on principal components and of length 1.
    Nadaraya 1964; few labelled videos are enough, as in the matching networks of Vinyals et al. 2016.
    """

    centre: Tensor
    """(F,)"""
    scale: Tensor
    """(F,)"""
    examples: Tensor
    """(M, P) the labelled videos, each of length 1."""
    example_class: Tensor
    """(M,) int64"""

    def __init__(self, motion: Motion, num_classes: int, config: TrainConfig) -> None:
        super().__init__(motion, num_classes)
        names = str(config.statistics).split(",")
        self._statistics = [STATISTICS[name][1] for name in names]
        size = motion.dim * sum(STATISTICS[name][0] for name in names)
        self.register_buffer("centre", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))
        self.components = Components(size, NEIGHBOUR_COMPONENTS)
        self.register_buffer("examples", torch.zeros(0, NEIGHBOUR_COMPONENTS))
        self.register_buffer("example_class", torch.zeros(0, dtype=torch.int64))

    def pool(self, seen: Tensor, lengths: Tensor) -> Tensor:
        """Compute the statistics: (N, T, M · D) -> (N, F)"""
        return torch.cat([statistic(seen, lengths) for statistic in self._statistics], dim=1)

    def embed(self, pooled: Tensor) -> Tensor:
        """Embed statistics: (N, F) -> (N, P), each of length 1"""
        return nn.functional.normalize(self.components((pooled - self.centre) / self.scale), dim=1)

    def classify(self, seen: Tensor, lengths: Tensor) -> Tensor:
        """See `Head.classify`; the logits are the logarithms of the votes."""
        cosines = self.embed(self.pool(seen, lengths)) @ self.examples.T  # (N, P) @ (P, M) -> (N, M)
        weights = (cosines / NEIGHBOUR_BANDWIDTH).softmax(dim=1)
        of_class = nn.functional.one_hot(self.example_class, self.num_classes).to(weights)  # (M, K)
        return (weights @ of_class + MIN_VOTE).log()

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *arguments: Any) -> None:
        for name in ("examples", "example_class"):  # as many as the training had
            stored = state_dict.get(f"{prefix}{name}")
            if stored is not None:
                setattr(self, name, torch.empty_like(stored, device=self.examples.device))
        super()._load_from_state_dict(state_dict, prefix, *arguments)


class Ensemble(Head):
    """Heads of one kind with different initial weights; the prediction is the mean of their probabilities."""

    def __init__(self, members: Sequence[Head]) -> None:
        super().__init__(members[0].motion, members[0].num_classes)
        self.members = nn.ModuleList(members)

    @property
    def heads(self) -> list[Head]:
        """The members."""
        return [member for member in self.members if isinstance(member, Head)]

    def classify(self, seen: Tensor, lengths: Tensor) -> Tensor:
        """See `Head.classify`; the logits are the logarithms of the mean probabilities."""
        each = torch.stack([head.classify(seen, lengths).log_softmax(dim=1) for head in self.heads])  # (M, N, K)
        return each.logsumexp(dim=0) - torch.tensor(float(len(each))).log()


# Over time

NUM_WAVES = 4


def _positions(sequences: Tensor, lengths: Tensor) -> Tensor:
    """Encode each step's position in its sequence, from 0 to 1, as sines and cosines: (N, T, 2 · NUM_WAVES)."""
    steps = torch.arange(sequences.shape[1], device=sequences.device)[None, :]  # (1, T)
    return _waves(steps / (lengths.to(sequences)[:, None] - 1).clamp_min(1))  # (N, T) -> (N, T, 2 · NUM_WAVES)


def _waves(share: Tensor) -> Tensor:
    """Encode numbers from 0 to 1 as sines and cosines: (…) -> (…, 2 · NUM_WAVES)"""
    angles = share[..., None] * torch.pi * torch.arange(1, NUM_WAVES + 1, device=share.device)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def _places(num_cells: int) -> Tensor:
    """Encode the centres of the whole picture (zeros) and of its cells, row by row: (C, 4 · NUM_WAVES)"""
    grid = math.isqrt(num_cells - 1)
    centres = (torch.arange(grid) + 0.5) / grid
    cells = _waves(torch.cartesian_prod(centres, centres)).flatten(1)  # (G², 2) y and x -> (G², 4 · NUM_WAVES)
    return torch.cat([torch.zeros_like(cells[:1]), cells])


def time_thirds(sequences: Tensor, lengths: Tensor) -> Tensor:
    """Return the means of each sequence's thirds, (N, T, D) -> (N, 3 · D); a step on a border counts for both.

    T = 4:    |0.0 1 2 3.|    thirds of 4/3 steps: [0, 4/3), [4/3, 8/3), [8/3, 4)
    """
    steps = torch.arange(sequences.shape[1], device=sequences.device)  # (T,)
    third = lengths.to(sequences)[:, None] / 3  # (N, 1) steps in a third
    starts = torch.arange(3, device=sequences.device) * third  # (N, 3)
    first = torch.maximum(steps[None, None, :], starts[:, :, None])  # (N, 3, T)
    last = torch.minimum(steps[None, None, :] + 1, (starts + third)[:, :, None])
    weights = (last - first).clamp_min(0) / third[:, :, None]  # (N, 3, T), each row sums to 1
    return torch.einsum("npt,ntd->npd", weights, sequences).flatten(1)


def _deviation(sequences: Tensor, lengths: Tensor) -> Tensor:
    mean = masked_mean(sequences, lengths)
    variance = masked_mean((sequences - mean[:, None]).square(), lengths)
    return variance.clamp_min(MIN_VARIANCE).sqrt()


STATISTICS: Mapping[str, tuple[int, Callable[[Tensor, Tensor], Tensor]]] = {
    "mean": (1, masked_mean),
    "deviation": (1, _deviation),
    "thirds": (3, time_thirds),
}
"""How many numbers each statistic gives for a feature, and the function (N, T, D), (N,) -> (N, number · D). The mean of
the transform `magnitude` is the mean absolute difference."""


# By name


def _recurrent(cell: _Cell, motion: Motion, num_classes: int, config: TrainConfig) -> Head:
    return RecurrentHead(motion, num_classes, config, cell=cell, bidirectional=config.bidirectional)


def _bilstm(motion: Motion, num_classes: int, config: TrainConfig) -> Head:
    return RecurrentHead(motion, num_classes, config, cell=nn.LSTM, bidirectional=True)


HEADS: Mapping[str, Callable[[Motion, int, TrainConfig], Head]] = {
    "lstm": partial(_recurrent, nn.LSTM),
    "bilstm": _bilstm,
    "gru": partial(_recurrent, nn.GRU),
    "attention": AttentionHead,
    "tcn": TCNHead,
    "transformer": TransformerHead,
    "neighbours": NeighboursHead,
    "mean": lambda motion, num_classes, config: MeanHead(motion, num_classes),
    "statistics": lambda motion, num_classes, config: StatisticsHead(
        motion, num_classes, str(config.statistics).split(",")
    ),
}


SEE_CELLS = ("attention",)
"""The heads that see the cells of pictures; all others see the whole pictures only."""


def build_head(
    name: str, dim: int, num_classes: int, config: TrainConfig, *, kind: str = "image", num_cells: int = 1
) -> Head:
    """Build an untrained head, or an `Ensemble` of them; a head that no seed changes is always alone.

    The baseline `mean` uses raw features, each divided by its own deviation, whatever the config says.

    Args:
        name: one of `HEADS`.
        dim: D, the size of a feature.
        num_classes: K.
        config: the settings.
        kind: of the stream's backbone, a key of `vidpipe.heads.inputs.HEAD_INPUTS`; it gives the settings that are
            None.
        num_cells: C, the features of each frame: of the whole picture and of its cells.

    Returns:
        The head, with random weights from torch's random number generator.
    """
    if name == "mean":
        return HEADS[name](Motion(dim, transforms=["raw"], unit_frames=False, scale_sharing=0.0), num_classes, config)
    config = resolve_input(config, kind)
    motion = Motion(
        dim,
        transforms=str(config.motion).split(","),
        unit_frames=bool(config.unit_frames),
        scale_sharing=float(config.scale_sharing or 0),
        num_cells=num_cells if name in SEE_CELLS else 1,
    )
    num_members = 1 if name in SEEDLESS_HEADS else config.ensemble
    members = [HEADS[name](motion, num_classes, config) for _ in range(num_members)]
    return members[0] if len(members) == 1 else Ensemble(members)
