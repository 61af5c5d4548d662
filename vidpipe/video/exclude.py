"""The patterns of `--exclude`: which paths are left out."""

import unicodedata
from collections.abc import Sequence
from fnmatch import fnmatchcase
from itertools import accumulate

from vidpipe.errors import UsageError

__all__ = ["Exclude"]


class Exclude:
    """Patterns of paths to leave out, similar to .gitignore, relative to the INPUT and with `/` between folders.

    A pattern without a `/` is compared with each name in the path. One with a `/` is compared with the path below the
    INPUT, and with each folder in it. `*` matches a `/` too.

        *.gif           every GIF            rejected/*      what is in rejected/ of the INPUT
        rejected        every folder or file of that name, and what is in it

    Args:
        patterns: the patterns; case counts.

    Raises:
        UsageError: a pattern is empty.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = {pattern: _normalised(pattern) for pattern in patterns}
        self._used: set[str] = set()

    @property
    def unused(self) -> tuple[str, ...]:
        """The patterns that have not matched any path so far."""
        return tuple(pattern for pattern in self._patterns if pattern not in self._used)

    @property
    def used(self) -> tuple[str, ...]:
        """The patterns that have matched a path."""
        return tuple(pattern for pattern in self._patterns if pattern in self._used)

    def find(self, path: str) -> str | None:
        """Return the first pattern that matches a path, or a folder in it; None where there is none."""
        if not self._patterns:
            return None
        names = unicodedata.normalize("NFC", path).split("/")
        folders_and_path = list(accumulate(names, "{}/{}".format))  # a/b/c.mp4 -> a, a/b, a/b/c.mp4
        for given, pattern in self._patterns.items():
            for tried in folders_and_path if "/" in pattern else names:
                if fnmatchcase(tried, pattern.removeprefix("/")):
                    self._used.add(given)
                    return given
        return None


def _normalised(pattern: str) -> str:
    """`rejected/` -> `rejected`; `/a` and `./a` -> `/a`, where the `/` stands for the INPUT itself."""
    text = unicodedata.normalize("NFC", pattern).rstrip("/")
    text = f"/{text[2:]}" if text.startswith("./") else text
    if text.startswith("**/") and "/" not in text[3:]:
        text = text[3:]
    if not text or text == ".":
        raise UsageError(f"--exclude {pattern!r}: not a pattern; give one such as '*.gif' or 'rejected/*'")
    return text
