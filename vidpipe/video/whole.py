"""Videos decoded whole: all pictures of a video together, where `vidpipe.video.decoding` gives them in batches."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from vidpipe.config import Decoding, ExtractConfig
from vidpipe.errors import VideoError
from vidpipe.records import FrameBatch, VideoFailure, VideoFile, VideoInfo, VideoPlan
from vidpipe.video.decoding import choose_decoder, decode_videos, default_workers
from vidpipe.video.view import View

__all__ = ["WholeVideo", "decode_whole"]


@dataclass
class WholeVideo:
    """A video with all its pictures, which come in batches."""

    video: VideoFile
    info: VideoInfo
    plan: VideoPlan
    pictures: dict[str, NDArray[np.uint8]]
    """By stream, (P, 3, H, W)."""
    num_missing: int

    @classmethod
    def of(cls, batch: FrameBatch) -> Self:
        """Return a video without pictures, from its first batch."""
        return cls(batch.video, batch.info, batch.video_plan, {}, batch.video_plan.num_pictures)

    def add(self, batch: FrameBatch) -> None:
        """Keep the pictures of a batch."""
        shape = (batch.plan.num_pictures, *batch.pictures.shape[1:])
        pictures = self.pictures.setdefault(batch.stream, np.empty(shape, np.uint8))
        pictures[batch.start : batch.start + len(batch.pictures)] = batch.pictures
        self.num_missing -= len(batch.pictures)

    def inputs(self, stream: str) -> NDArray[np.uint8]:
        """Return what the backbone of a stream sees of each row, (T, 3, H, W) or (T, W, 3, H, W)."""
        row_pictures = self.plan.streams[stream].row_pictures
        return self.pictures[stream] if row_pictures is None else self.pictures[stream][row_pictures]


def decode_whole(
    videos: Sequence[VideoFile],
    views: Mapping[str, View],
    *,
    decoding: Decoding,
    config: ExtractConfig,
    check: Callable[[VideoPlan], None] = lambda plan: None,
) -> Iterator[WholeVideo | VideoFailure]:
    """Decode videos, and yield each when all its pictures are there.

    Args:
        videos: what to read.
        views: by stream, what it needs of each video.
        decoding: how the streams' frames are decoded.
        config: the decoder, the number of workers and the time limit.
        check: raises a `VideoError` for a video that is not to be decoded whole.

    Yields:
        The videos and the failures, in the order in which they get done.

    Raises:
        UsageError: this machine cannot decode as the streams need it.
    """
    unfinished: dict[str, WholeVideo] = {}
    refused: set[str] = set()
    batches = decode_videos(
        videos,
        views,
        decoder=choose_decoder(decoding, config.decoder),
        fast_decode=decoding.fast_decode,
        workers=config.workers or default_workers(),
        timeout_seconds=config.timeout,
    )
    with closing(batches):
        for batch in batches:
            if isinstance(batch, VideoFailure):
                unfinished.pop(batch.video_id, None)
                yield batch
            elif isinstance(batch, FrameBatch) and batch.video.id not in refused:
                video_id = batch.video.id
                whole = unfinished.get(video_id)
                if whole is None or whole.plan is not batch.video_plan:
                    try:
                        check(batch.video_plan)
                    except VideoError as error:
                        refused.add(video_id)
                        yield VideoFailure(video_id, type(error).__name__, str(error))
                        continue
                    whole = unfinished[video_id] = WholeVideo.of(batch)
                whole.add(batch)
                if not whole.num_missing:
                    yield unfinished.pop(video_id)
