"""Opening a media file. Whatever the file contains, no other file and no network address is read."""

import stat
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Protocol

import av

from vidpipe.errors import DecodeError, NotAVideoError, UnreadableFileError

__all__ = [
    "FAST_DECODE",
    "GROWING_FORMATS",
    "MAX_PIXELS",
    "ByteStream",
    "open_container",
    "open_stream",
    "video_stream",
]

av.logging.set_level(av.logging.PANIC)

FAST_DECODE: Mapping[str, Mapping[str, str]] = {
    "off": {},
    "nonref": {"skip_loop_filter": "noref"},
    "all": {"skip_loop_filter": "all"},
}
"""FFmpeg's options by the value of `--fast-decode`."""

MAX_PIXELS = 2**27
"""The largest picture, 16384 × 8192: a header of a few bytes must not make a process allocate gigabytes."""

GROWING_FORMATS = "record MPEG-TS, Matroska or fragmented MP4"
"""What to do about a file that can be read only when it is complete, as most MP4 files."""

REFERRING_FORMATS = frozenset(
    (
        *("hls", "dash", "webm_dash_manifest", "imf", "concat", "concatf", "vobsub", "mlv", "dvdvideo", "bluray"),
        *("sdp", "rtsp", "rtp", "sap", "lavfi", "vapoursynth", "avisynth", "tty", "svg_pipe", "libopenmpt"),
    )
)
"""Demuxers that read other files or addresses than the one named. They are refused, and so are those that open their
input themselves (devices, image sequences)."""

_NO_FILE = 1  # FFmpeg's AVFMT_NOFILE
_HEAD_BYTES = 2**16
_FIRST_WORDS = (b"#extm3u", b"ffconcat", b"[playlist]", b"[reference]", b"# vobsub index", b"v=0\r", b"v=0\n", b"mlvi")
_XML_ELEMENTS = (b"<mpd", b"<smoothstreamingmedia", b"<compositionplaylist", b"<asx", b"<smil", b"<playlist")
_PATTERN_SIGNS = frozenset("%*?{")
"""FFmpeg reads the name of an image with one of these as the name of a sequence of images."""


def open_container(path: Path) -> "av.container.InputContainer":
    """Open a media file with FFmpeg, by its content.

    Args:
        path: the file.

    Returns:
        The open file.

    Raises:
        NotAVideoError: the file is empty, no media file, or a playlist or reference to other files.
        UnreadableFileError: the operating system does not allow reading it.
    """
    if _names_other_files(_read_head(path)):
        raise NotAVideoError(
            "a playlist or a reference to other files, and vidpipe reads only the file that it is given; "
            "give those files themselves"
        )
    try:
        return av.open(f"file:{path.absolute()}", options=_options(), metadata_errors="replace")
    except av.error.FFmpegError as error:
        if isinstance(error, av.error.ArgumentError) and _PATTERN_SIGNS & set(str(path.absolute())):
            raise NotAVideoError(
                "FFmpeg reads its name as that of a sequence of images, because of a %, *, ? or { in it; rename it"
            ) from error
        raise NotAVideoError(f"not a media file that FFmpeg can open by itself ({error.strerror})") from error


class ByteStream(Protocol):
    """Bytes that are read once, from the first to the last."""

    name: str
    """A file name: FFmpeg considers its suffix when it tells formats apart."""

    def read(self, num_bytes: int) -> bytes:
        """Return some bytes, at most as many as asked for; none at the end."""


def open_stream(stream: ByteStream, head: bytes) -> "av.container.InputContainer":
    """Open a media file that is read once, from its start.

    Args:
        stream: its bytes.
        head: the first of them, or all that there are.

    Returns:
        The open file.

    Raises:
        NotAVideoError: it is no media file, a playlist or reference to other files, or its index is at its end.
    """
    if _names_other_files(head):
        raise NotAVideoError(
            "a playlist or a reference to other files, and vidpipe reads only the file that it is given"
        )
    try:
        return av.open(stream, "r", options=_options(), metadata_errors="replace")
    except av.error.FFmpegError as error:
        raise NotAVideoError(
            f"not a media file that can be read while it grows ({error.strerror}); {GROWING_FORMATS}"
        ) from error


def video_stream(
    container: "av.container.InputContainer", *, options: Mapping[str, str] | None = None
) -> "av.video.stream.VideoStream":
    """Return the video stream that FFmpeg ranks first, set to decode on one thread.

    Args:
        container: the open file.
        options: of FFmpeg's decoder, such as those of `FAST_DECODE`.

    Returns:
        The stream.

    Raises:
        NotAVideoError: there is none, or only cover art.
        DecodeError: its pictures are larger than `MAX_PIXELS`.
    """
    stream = container.streams.best("video")
    if not isinstance(stream, av.VideoStream) or stream.codec_context is None:
        raise NotAVideoError("no video stream in the file")
    if stream.disposition & av.stream.Disposition.attached_pic:
        raise NotAVideoError("no video stream in the file: its only picture is cover art")
    context = stream.codec_context
    if context.width * context.height > MAX_PIXELS:
        raise DecodeError(f"pictures of {context.width} × {context.height} pixels; at most {MAX_PIXELS} are decoded")
    context.options = {"max_pixels": str(MAX_PIXELS), **(options or {})}
    context.thread_count = 1
    return stream


def _options() -> dict[str, str]:
    return {"format_whitelist": _allowed_formats(), "protocol_whitelist": "file"}


@cache
def _allowed_formats() -> str:
    names = {name for format_name in av.formats_available for name in format_name.split(",")}
    return ",".join(sorted(name for name in names - REFERRING_FORMATS if not _opens_its_own_input(name)))


def _opens_its_own_input(format_name: str) -> bool:
    try:
        flags = av.format.ContainerFormat(format_name, "r").flags
    except ValueError:  # a format that FFmpeg only writes
        return True
    return bool(flags & _NO_FILE)


def _read_head(path: Path) -> bytes:
    """Return the first bytes of a regular file.

    Raises:
        NotAVideoError: it is no regular file, or empty.
        UnreadableFileError: it does not exist, or cannot be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise NotAVideoError("not a regular file")
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
    except OSError as error:
        raise UnreadableFileError(f"cannot be read ({error.strerror})") from error
    if not head:
        raise NotAVideoError("the file is empty")
    return head


def _names_other_files(head: bytes) -> bool:
    """Whether a demuxer of any version of FFmpeg could read a file as a list of other files.

    Some look for their mark only at the start, some at the start of a line of text, some anywhere. A real video may
    follow the mark, and another version of FFmpeg would read that.
    """
    head = head.lower()
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(_FIRST_WORDS) or (text.startswith(b"<") and any(name in text for name in _XML_ELEMENTS)):
        return True
    is_dash = b"<mpd" in head and (b"dash:profile:" in head or b"profile:dash" in head)
    is_session = b"\nc=in ip" in b"\n" + head.partition(b"\0")[0]
    return is_dash or is_session or b"<compositionplaylist" in head
