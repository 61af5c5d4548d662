"""How far an extraction is."""

from dataclasses import dataclass

from vidpipe.records import DecodeProgress, VideoFailure

__all__ = ["ExtractProgress"]


@dataclass(frozen=True)
class ExtractProgress:
    """How far an extraction is."""

    num_videos: int
    """Videos to extract in this run, without those that are stored already."""
    num_done: int = 0
    num_failed: int = 0
    num_frames: int = 0
    """Rows of the videos that are done, of all streams, without the cells of a grid."""
    seconds: float = 0.0
    reading: DecodeProgress | None = None
    """The progress of an unfinished video, where that is the news."""
    failure: VideoFailure | None = None
    """The video that failed, where that is the news."""
