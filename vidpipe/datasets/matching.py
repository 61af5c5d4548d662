"""Match the names in a labels file with a store's ids: an id, the end of one, or a path that ends with one."""

import posixpath
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

__all__ = ["Match", "match_names", "nearest_ids"]


@dataclass(frozen=True)
class Match:
    """A video that a name may refer to."""

    video_id: str
    folder: str = ""
    """The name before the id: `data/videos` in `/data/videos/walk/a.mp4` for the id `walk/a.mp4`."""


def match_names(names: Iterable[str], video_ids: Collection[str]) -> dict[str, list[Match]]:
    """Find the videos that names refer to.

    A name matches, in this order: the same id; the same id after normalisation (`.\\walk\\a.mp4`, `/walk/a.mp4` and
    `walk/../walk/a.mp4` become `walk/a.mp4`); an id that ends with `/` and the name; an id that the name ends with,
    after a `/`. The extension may be missing. Unicode's composed and decomposed letters are the same.

    Args:
        names: the names in the file.
        video_ids: the ids to match.

    Returns:
        The matches of each name: none where no video matches, several where they are equally likely.
    """
    index = _Index(video_ids, _as_id)
    found = {name: index.find(name) for name in dict.fromkeys(names)}
    single = [matches[0] for matches in found.values() if len(matches) == 1]
    folders = {match.folder for match in single}
    named = {match.video_id for match in single if not match.folder}
    return {name: _likeliest(matches, folders, named) for name, matches in found.items()}


def nearest_ids(names: Iterable[str], video_ids: Collection[str]) -> dict[str, str]:
    """Return the id that each name would match without regard to case and extension; names without one are left out."""
    index = _Index(video_ids, lambda name: _as_id(name).casefold())
    found = {name: index.find(posixpath.splitext(name)[0]) for name in names}
    return {name: matches[0].video_id for name, matches in found.items() if matches}


class _Index:
    """The ids by every name that matches them: `set1/walk/a.mp4` and its ends, with or without extension."""

    def __init__(self, video_ids: Collection[str], spelled: Callable[[str], str]) -> None:
        self._ids = set(video_ids)
        self._spelled = spelled
        self._by_whole: dict[str, list[str]] = defaultdict(list)
        self._by_ending: dict[str, list[str]] = defaultdict(list)
        for video_id in sorted(self._ids):
            whole = spelled(video_id)
            for name in {whole, posixpath.splitext(whole)[0]}:
                self._by_whole[name].append(video_id)
                parts = name.split("/")
                for start in range(len(parts)):
                    self._by_ending["/".join(parts[start:])].append(video_id)

    def find(self, name: str) -> list[Match]:
        if name in self._ids:
            return [Match(name)]
        spelled = self._spelled(name)
        for ids in (self._by_whole, self._by_ending):
            if spelled in ids:
                return [Match(video_id) for video_id in ids[spelled]]
        parts = spelled.split("/")
        return [
            Match(video_id, "/".join(parts[:start]))
            for start in range(1, len(parts))
            for video_id in self._by_whole.get("/".join(parts[start:]), ())
        ]


def _likeliest(matches: list[Match], folders: Collection[str], named: Collection[str]) -> list[Match]:
    """The matches except videos that another name matches exactly; of several, the one in a folder of other names."""
    matches = [match for match in matches if not match.folder or match.video_id not in named]
    in_known_folder = [match for match in matches if match.folder in folders]
    return in_known_folder if len(in_known_folder) == 1 else matches


def _as_id(name: str) -> str:
    r"""`.\walk\a.mp4` and `/walk/a.mp4` -> `walk/a.mp4`"""
    return posixpath.normpath(unicodedata.normalize("NFC", name).replace("\\", "/")).lstrip("/")
