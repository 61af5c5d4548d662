"""Opening a media file, and nothing but that file: whatever it contains, no other file and no address is read."""

from functools import cache
from pathlib import Path

import av

from vidpipe.errors import NotAVideoError

__all__ = ["open_container", "video_stream"]

av.logging.set_level(av.logging.PANIC)

REFERRING_FORMATS = frozenset(
    (
        *("hls", "dash", "webm_dash_manifest", "imf", "concat", "concatf"),
        *("sdp", "rtsp", "rtp", "sap", "lavfi", "vapoursynth", "avisynth", "tty"),
    )
)
"""Demuxers that read other files or addresses than the one named."""


@cache
def _allowed_formats() -> str:
    names = (name for format_name in av.formats_available for name in format_name.split(","))
    return ",".join(sorted(set(names) - REFERRING_FORMATS))


def open_container(path: Path) -> "av.container.InputContainer":
    """Open a media file with FFmpeg, by its content.

    Raises:
        NotAVideoError: it is empty, no media file, or a playlist or reference to other files, which are refused.
    """
    if not path.is_file():
        raise NotAVideoError("no such file" if not path.exists() else "not a regular file")
    if path.stat().st_size == 0:
        raise NotAVideoError("the file is empty")
    options = {"format_whitelist": _allowed_formats(), "protocol_whitelist": "file"}
    try:
        return av.open(f"file:{path.absolute()}", options=options, metadata_errors="replace")
    except av.error.FFmpegError as error:
        raise NotAVideoError(f"not a media file that FFmpeg can open by itself ({error.strerror})") from error


def video_stream(container: "av.container.InputContainer") -> "av.video.stream.VideoStream":
    """The stream that FFmpeg calls best; decodes on one thread.

    Raises:
        NotAVideoError: there is none, or only cover art.
    """
    stream = container.streams.best("video")
    if not isinstance(stream, av.VideoStream) or stream.codec_context is None:
        raise NotAVideoError("no video stream in the file")
    if stream.disposition & av.stream.Disposition.attached_pic:
        raise NotAVideoError("no video stream in the file: its only picture is cover art")
    stream.codec_context.thread_count = 1
    return stream
