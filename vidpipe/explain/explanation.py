"""The explanation of a label: which streams, rows, places and directions of motion spoke for it, and against it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vidpipe.explain.places import StreamView
from vidpipe.explain.shares import HeadShares, share_out
from vidpipe.heads.fusion import Fusion
from vidpipe.heads.heads import LinearHead
from vidpipe.records import Rows, VideoFile, VideoInfo

__all__ = ["ExplainedVideo", "Explanation", "Region", "StreamExplanation", "explain_video"]


Region = tuple[float, float, float, float]
"""x, y, width and height, as fractions of a picture."""


@dataclass(frozen=True)
class StreamExplanation:
    """What spoke for a label in one stream. Shares are parts of the margin, in units of logits."""

    name: str
    rows: Rows
    """The T rows of pictures."""
    shares: NDArray[np.float64]
    """(T,)"""
    places: NDArray[np.float64] | None
    """(T, h, w) of the part of the picture that the backbone sees; None where the feature has no places."""
    places_add_up: bool
    """Whether the shares of the places add up to those of their rows."""
    directions: NDArray[np.float64] | None = None
    """(T, directions + 1) of the directions of motion, from right on clockwise, then of stillness; None for others."""

    @property
    def is_flow(self) -> bool:
        """Whether its places are the cells of histograms of motion."""
        return self.directions is not None

    @property
    def share(self) -> float:
        """Of the whole stream."""
        return float(self.shares.sum())

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers, for JSON."""
        rows, places, directions = self.rows, self.places, self.directions
        of_rows = {
            "pts_seconds": rows.pts_seconds,
            "start_seconds": rows.start_seconds,
            "stop_seconds": rows.stop_seconds,
            "share": self.shares,
            "places": places,
            "directions": directions,
        }
        columns = {name: values.tolist() for name, values in of_rows.items() if values is not None}
        return {
            "stream": self.name,
            "share": self.share,
            "places_add_up": self.places_add_up,
            "rows": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)],
        }


@dataclass(frozen=True)
class Explanation:
    """Why a video has a label, or why it does not have another one."""

    label: str
    against: str | None
    """The label that it is compared with; None for the mean of all."""
    probability: float
    """Of the label."""
    margin: float
    """The logit of the label, less the mean logit of all labels, or that of `against`."""
    bias: float
    """The margin of a video whose rows are all the average row of the training set."""
    streams: tuple[StreamExplanation, ...]
    is_exact: bool
    """Whether the heads are linear, so that the shares and the bias add up to the margin."""

    @property
    def residual(self) -> float:
        """What the shares and the bias lack of the margin; rounding errors where `is_exact`."""
        return self.margin - self.bias - sum(stream.share for stream in self.streams)


@dataclass(frozen=True)
class ExplainedVideo:
    """A video with the explanation of a label, and what the streams saw of it."""

    video: VideoFile
    info: VideoInfo
    explanation: Explanation
    pictures: Mapping[str, NDArray[np.uint8]]
    """By stream, (T, 3, H, W) the picture of each row; of a window, the one in its middle."""
    regions: Mapping[str, Region]
    """By stream, the part of the video's pictures that the backbone sees."""

    def aspect_ratio(self, stream: str) -> float:
        """Return width by height of what the backbone of a stream sees, before it is resized."""
        _, _, width, height = self.regions[stream]
        return width * self.info.width / (height * self.info.height)

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers, for JSON."""
        explanation = self.explanation
        return {
            "video": self.video.id,
            "path": str(self.video.path),
            "label": explanation.label,
            "against": explanation.against,
            "probability": explanation.probability,
            "margin": explanation.margin,
            "bias": explanation.bias,
            "residual": explanation.residual,
            "exact": explanation.is_exact,
            "streams": [
                {**stream.as_dict(), "region": list(self.regions[stream.name])} for stream in explanation.streams
            ],
        }


def explain_video(
    fusion: Fusion,
    views: Mapping[str, StreamView],
    rows: Mapping[str, Rows],
    class_names: Sequence[str],
    *,
    label: str | None = None,
    against: str | None = None,
) -> Explanation:
    """Divide the margin of a label between the streams, rows and places of a video.

    Args:
        fusion: the classifier, on the CPU, in evaluation mode.
        views: by stream, what the backbone saw.
        rows: by stream, the rows of pictures.
        class_names: K names.
        label: one of them; None for the predicted one.
        against: the label to compare it with; None for the mean of all.

    Returns:
        The explanation.
    """
    sequences = {name: (view.features[None], torch.tensor([len(view.features)])) for name, view in views.items()}
    with torch.no_grad():
        logits = fusion(sequences)[0]  # (K,)
    index = int(logits.argmax()) if label is None else class_names.index(label)
    contrast = _contrast(len(class_names), index, None if against is None else class_names.index(against))
    heads = _weighted_heads(fusion, views, contrast)
    return Explanation(
        label=class_names[index],
        against=against,
        probability=float(logits.softmax(dim=0)[index]),
        margin=float(logits @ contrast),
        bias=sum(factor * head.bias for weighted in heads.values() for factor, head in weighted),
        streams=tuple(_explain_stream(name, view, rows[name], heads[name]) for name, view in views.items()),
        is_exact=all(isinstance(head, LinearHead) for member in fusion.fitted.values() for head in member.heads),
    )


def _contrast(num_classes: int, index: int, against: int | None) -> Tensor:
    """(K,) the weights of the logits in the margin."""
    contrast = torch.full((num_classes,), -1 / num_classes) if against is None else torch.zeros(num_classes)
    contrast[index] += 1
    if against is not None:
        contrast[against] -= 1
    return contrast


def _weighted_heads(
    fusion: Fusion, views: Mapping[str, StreamView], contrast: Tensor
) -> dict[str, list[tuple[float, HeadShares]]]:
    """By stream, the heads that see it, each with its factor: margins of the members add up, times their weights."""
    is_single = len(fusion.fitted) == 1
    heads: dict[str, list[tuple[float, HeadShares]]] = {name: [] for name in views}
    for weight, member in zip(fusion.weights.tolist(), fusion.fitted.values(), strict=True):
        factor = 1.0 if is_single else weight / float(fusion.temperature)
        for stream, head in zip(member.member.streams, member.heads, strict=True):
            heads[stream].append((factor, share_out(head, views[stream].features, contrast)))
    return heads


def _explain_stream(
    name: str, view: StreamView, rows: Rows, heads: Sequence[tuple[float, HeadShares]]
) -> StreamExplanation:
    return StreamExplanation(
        name,
        rows,
        shares=_array(view.rows(heads)),
        places=_array_or_none(view.places(heads)),
        places_add_up=view.adds_up,
        directions=_array_or_none(view.directions(heads)),
    )


def _array(tensor: Tensor) -> NDArray[np.float64]:
    array: NDArray[np.float64] = tensor.double().numpy()
    return array


def _array_or_none(tensor: Tensor | None) -> NDArray[Any] | None:
    return None if tensor is None else _array(tensor)
