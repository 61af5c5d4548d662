"""Which files a command may replace: only those that vidpipe wrote as the same kind of output."""

from collections.abc import Callable
from pathlib import Path

from vidpipe.errors import UsageError

__all__ = ["check_replaceable", "is_own_page", "is_own_picture"]

NUM_FIRST_BYTES = 65536


def check_replaceable(path: Path, kind: str, *, is_own: Callable[[bytes], bool]) -> None:
    """Check that writing an output replaces nothing but an older output of its kind.

    A file that does not exist, an empty file and a device such as `/dev/null` pass.

    Args:
        path: the file to write.
        kind: what the command writes, for the message: `a report`.
        is_own: whether a file is of that kind and by vidpipe, told by its first 64 KiB.

    Raises:
        UsageError: the path is a folder, another kind of file, or a file that cannot be read.
    """
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; give the name of a file")
    if not path.is_file():
        return
    try:
        with path.open("rb") as stream:
            first = stream.read(NUM_FIRST_BYTES)
    except OSError as error:
        raise UsageError(f"{path}: exists and cannot be read ({error.strerror}); choose another file") from error
    if first and not is_own(first):
        raise UsageError(
            f"{path}: exists and is not {kind} written by vidpipe; choose another file, or delete this one first"
        )


def is_own_page(first: bytes) -> bool:
    """Whether a file's first bytes are those of a page that `vidpipe report` wrote."""
    return b'<meta name="generator" content="vidpipe ' in first


def is_own_picture(first: bytes) -> bool:
    """Whether a file's first bytes are those of a PNG that `vidpipe.plots` wrote."""
    return first.startswith(b"\x89PNG") and b"Software\0vidpipe " in first
