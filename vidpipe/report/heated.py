"""Frames with heat maps for the report: what spoke for the predicted label, against the true one."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vidpipe.config import ExtractConfig
from vidpipe.errors import UsageError, VidpipeError
from vidpipe.explain.contact import describe_margin, draw_row
from vidpipe.explain.explanation import ExplainedVideo, StreamExplanation
from vidpipe.records import VideoFile
from vidpipe.runs.run import Run
from vidpipe.stages.explain import Question, explain
from vidpipe.video.thumbnails import NUM_THUMBNAILS, THUMBNAIL_PIXELS, TIMEOUT_SECONDS, Thumbnail, jpeg_uri

__all__ = ["Heated", "read_heated"]

logger = logging.getLogger(__name__)


class _Case(Protocol):
    @property
    def video(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def predicted(self) -> str: ...


@dataclass(frozen=True)
class Heated:
    """Frames of a video with heat maps."""

    thumbnails: tuple[Thumbnail, ...]
    """Of the stream with the largest share."""
    margin: str
    """The parts of the margin in words."""


def read_heated(run: Run, cases: Sequence[_Case], files: Mapping[str, VideoFile]) -> dict[str, Heated]:
    """Explain what a run predicts for videos.

    A wrong label is compared with the true one, a right one with the mean of all.

    Args:
        run: the run.
        cases: the videos, and what was predicted for them.
        files: by id, the videos' files.

    Returns:
        The frames by video id; without the videos that cannot be explained, and empty, with a warning, where the run's
        backbones are not available.
    """
    questions = {case.video: _question(case) for case in cases}
    config = ExtractConfig(workers=1, timeout=TIMEOUT_SECONDS)
    try:
        explained = explain(run, [files[case.video] for case in cases], questions=questions, config=config)
        return {one.video.id: _heated(one) for one in explained if isinstance(one, ExplainedVideo)}
    except VidpipeError as error:
        hint = "" if isinstance(error, UsageError) else "; --no-heat-maps does not try"
        logger.warning("frames have no heat maps: %s%s", error, hint)
        return {}


def _question(case: _Case) -> Question:
    return (case.label, None) if case.label == case.predicted else (case.predicted, case.label)


def _heated(explained: ExplainedVideo) -> Heated:
    streams = explained.explanation.streams
    stream = max(streams, key=lambda one: (one.places is not None, abs(one.share)))
    rows = np.linspace(0, len(stream.shares) - 1, min(NUM_THUMBNAILS, len(stream.shares))).round().astype(int)
    return Heated(
        tuple(_thumbnail(explained, stream, row) for row in rows.tolist()), describe_margin(explained.explanation)
    )


def _thumbnail(explained: ExplainedVideo, stream: StreamExplanation, row: int) -> Thumbnail:
    drawn = draw_row(explained, stream, row, THUMBNAIL_PIXELS)
    seconds, share = float(stream.rows.pts_seconds[row]), float(stream.shares[row])
    return Thumbnail(seconds, jpeg_uri(np.asarray(drawn)), share)
