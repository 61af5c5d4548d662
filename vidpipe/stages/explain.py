"""Explain the labels of videos: decode what each stream sees, run the backbones with their maps, divide the margins."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray

from vidpipe.backbones.flow import FlowParameters
from vidpipe.backbones.image import load_backbone
from vidpipe.backbones.stream import Stream, resolve_decoding
from vidpipe.config import ExtractConfig
from vidpipe.datasets.streams import kind_of
from vidpipe.errors import DecodeError, UsageError, unknown_name
from vidpipe.explain.explanation import ExplainedVideo, Region, explain_video
from vidpipe.explain.places import FlowView, NetworkView, StreamView
from vidpipe.records import VideoFailure, VideoFile, VideoInfo, VideoPlan
from vidpipe.runs.run import Run
from vidpipe.video.crop import cell_regions
from vidpipe.video.view import View
from vidpipe.video.whole import WholeVideo, decode_whole

__all__ = ["Question", "explain"]

logger = logging.getLogger(__name__)

MAX_ROWS = 1024
"""The feature maps of all rows of a video are in memory: of 1,024 rows of 1280 × 7 × 7 floats, 257 MB."""

Question = tuple[str | None, str | None]
"""The label to explain, None for the predicted one; and the label to compare it with, None for the mean of all."""
Inputs = NDArray[np.uint8]
"""What a backbone sees: (T, 3, H, W), or (T, W, 3, H, W) of windows."""


def explain(
    run: Run,
    videos: Sequence[VideoFile],
    *,
    questions: Mapping[str, Question] = MappingProxyType({}),
    config: ExtractConfig | None = None,
) -> Iterator[ExplainedVideo | VideoFailure]:
    """Explain the labels that a run gives to videos.

    Args:
        run: from `Run.open`.
        videos: their ids differ.
        questions: by id, what to explain of a video; of others, the predicted label against the mean of all.
        config: device, workers, timeout and weights.

    Returns:
        An iterator over the explanations and failures, in the order in which the videos are decoded.

    Raises:
        RunError: the weights are not those that the run was trained on, or this version of vidpipe does not have the
            backbone, or the run labels the rows of long videos.
        UsageError: the run does not have a label, or the device or a weights file is not available.
        WeightsError: the backbone's weights cannot be downloaded or read.
    """
    for question in set(questions.values()):
        _check_labels(run, *question)
    if any(key.regions is not None for key in run.keys.values()):
        raise UsageError(
            f"{run.path}: it was trained with --regions, whose pictures `vidpipe explain` does not show; explain a run "
            "that was trained without"
        )
    if any(kind_of(key) == "pose" for key in run.keys.values()):
        raise UsageError(
            f"{run.path}: it was trained on key points of people, which `vidpipe explain` does not show; explain a run "
            "that was trained without the stream pose"
        )
    return _Explainer(run, questions, config or ExtractConfig()).explain_each(videos)


def _check_labels(run: Run, label: str | None, against: str | None) -> None:
    for one in (label, against):
        if one is not None and one not in run.class_names:
            raise UsageError(f"{run.path}: {unknown_name('label', one, run.class_names)}")
    if against is not None and against == label:
        raise UsageError(f"--against {against}: is the label itself; choose another one, or leave it out")


class _Explainer:
    """A run with its backbones, ready to explain videos."""

    def __init__(self, run: Run, questions: Mapping[str, Question], config: ExtractConfig) -> None:
        self._fusion, _ = run.load_classifiers(torch.device("cpu"))
        self._class_names, self._questions, self._config = run.class_names, questions, config
        self._streams = {
            name: Stream.of_key(key, weights=config.weights, owner=str(run.path)) for name, key in run.keys.items()
        }
        self._see = {name: _seer(stream, config.device) for name, stream in self._streams.items()}

    def explain_each(self, videos: Sequence[VideoFile]) -> Iterator[ExplainedVideo | VideoFailure]:
        """Explain videos one by one."""
        decoding = resolve_decoding({name: stream.key for name, stream in self._streams.items()})
        views = {
            name: View(stream.key.resolve_sampling(), stream.spec.preprocessing, stream.spec.window)
            for name, stream in self._streams.items()
        }
        for result in decode_whole(videos, views, decoding=decoding, config=self._config, check=_check_length):
            yield result if isinstance(result, VideoFailure) else self._explain(result)

    def _explain(self, decoded: WholeVideo) -> ExplainedVideo:
        inputs = {name: decoded.inputs(name) for name in self._streams}
        rows = {name: plan.rows for name, plan in decoded.plan.streams.items()}
        label, against = self._questions.get(decoded.video.id, (None, None))
        explanation = explain_video(
            self._fusion,
            {name: self._see[name](inputs[name]) for name in self._streams},
            rows,
            self._class_names,
            label=label,
            against=against,
        )
        if all(len(of_stream) == 1 for of_stream in rows.values()):
            logger.warning(
                "%s: a single row, so nothing changes in it, and its shares say what the absence of change speaks for; "
                "explain a longer video",
                decoded.video.id,
            )
        return ExplainedVideo(
            decoded.video,
            decoded.info,
            explanation,
            pictures={name: one if one.ndim == 4 else one[:, one.shape[1] // 2] for name, one in inputs.items()},
            regions={name: _seen_region(decoded.info, stream) for name, stream in self._streams.items()},
        )


def _seer(stream: Stream, device: str) -> Callable[[Inputs], StreamView]:
    """A function that runs a stream's backbone on its inputs."""
    if stream.spec.parameters is not None:
        return partial(FlowView, parameters=FlowParameters(**stream.spec.parameters))
    backbone = load_backbone(
        stream.spec, weights=stream.weights, pool=stream.key.pooling, device=device, grid=stream.key.grid
    )
    return partial(NetworkView, backbone)


def _seen_region(info: VideoInfo, stream: Stream) -> Region:
    x, y, width, height = cell_regions(info.height, info.width, stream.spec.preprocessing, 1)[1].tolist()
    return x, y, width, height


def _check_length(plan: VideoPlan) -> None:
    """Refuse a video with too many rows."""
    num_rows = max(len(its.rows) for its in plan.streams.values())
    if num_rows > MAX_ROWS:
        raise DecodeError(
            f"has {num_rows:,} rows, and an explanation shows at most {MAX_ROWS:,}; cut out the part to explain"
        )
