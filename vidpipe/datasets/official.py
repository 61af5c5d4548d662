"""Read the official split lists of UCF101 and HMDB51.

    ucfTrainTestlist/              trainlist01.txt         ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1
                                   testlist01.txt          ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi
    testTrainMulti_7030_splits/    wave_test_split1.txt    A_Film_wave_u_cm_np1_fr_med_0.avi 1
                                                           (1 train, 2 test, 0 not used)

UCF101: Soomro, Zamir and Shah 2012, https://www.crcv.ucf.edu/data/UCF101.php.
HMDB51: Kuehne et al. 2011, https://serre.lab.brown.edu/hmdb51.html.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vidpipe.csv_files import read_text
from vidpipe.errors import LabelsError, UsageError, unknown_name
from vidpipe.records import LabeledVideo

__all__ = ["LabelRow", "is_official", "read_official", "ucf101_group"]

_UCF101_LIST = re.compile(r"(?:train|test)list0(?P<split>[123])\.txt")
_UCF101_LINE = re.compile(r"(?P<name>(?P<label>[^/\s]+)/[^/\s]+)(?:\s+\d+)?")
_UCF101_VIDEO = re.compile(r"(?:.*/)?v_(?P<group>[^/]+_g\d+)_c\d+(?:\.[^./]+)?")
_HMDB51_LIST = re.compile(r"(?P<label>.+)_test_split(?P<split>[123])\.txt")
_HMDB51_LINE = re.compile(r"(?P<file>[^/]*\S)\s+(?P<use>[012])")
_HMDB51_SUBSETS = {"1": "train", "2": "test"}


@dataclass(frozen=True)
class LabelRow:
    """One line of a labels file."""

    video: LabeledVideo
    """Its `video_id` is the name in the file, not yet matched with a video."""
    path: Path
    line: int
    """Counted from 1."""

    @property
    def place(self) -> str:
        """`labels.csv, line 3`, for messages."""
        return f"{self.path}, line {self.line}"


def read_official(path: Path, *, official_split: int) -> list[LabelRow] | None:
    """Read the official lists of UCF101 or HMDB51.

    Args:
        path: the folder of the lists; or one list, with which all others of the same split are read.
        official_split: 1, 2 or 3: which split of a folder to read. A single list's name gives its split.

    Returns:
        A row for each video in the split; None where `path` is a file that is not named as an official list.

    Raises:
        LabelsError: a folder has no official lists, a list is missing, or a line is broken.
        UsageError: there is no such official split.
    """
    if official_split not in (1, 2, 3):
        raise UsageError(unknown_name("official split", str(official_split), ("1", "2", "3")))
    names = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else [path.name]
    for pattern, read in ((_UCF101_LIST, _ucf101_rows), (_HMDB51_LIST, _hmdb51_rows)):
        lists = [found for name in names if (found := pattern.fullmatch(name))]
        if lists:
            folder, split = (path, official_split) if path.is_dir() else (path.parent, int(lists[0]["split"]))
            return list(read(folder, split))
    if path.is_dir():
        raise LabelsError(
            f"{path}: a folder without official split lists; give UCF101's ucfTrainTestlist, "
            "HMDB51's testTrainMulti_7030_splits, or a CSV file with columns video,label"
        )
    return None


def is_official(path: Path) -> bool:
    """Return whether a path is read as official lists: a folder, or a file that is named as one of them."""
    return path.is_dir() or any(pattern.fullmatch(path.name) for pattern in (_UCF101_LIST, _HMDB51_LIST))


def ucf101_group(video: str) -> str | None:
    """Return the source that a clip was cut from, if its file name follows UCF101's convention.

    Args:
        video: a path with `/`, such as `Archery/v_Archery_g08_c01.avi`.

    Returns:
        The class and the source's number, such as `Archery_g08`; None for other names.
    """
    found = _UCF101_VIDEO.fullmatch(video)
    return found["group"] if found else None


def _ucf101_rows(folder: Path, split: int) -> Iterator[LabelRow]:
    for subset in ("train", "test"):
        path = folder / f"{subset}list{split:02d}.txt"
        if not path.is_file():
            raise LabelsError(
                f"{path}: no such file; the train list and the test list of a UCF101 split are read together"
            )
        for line, found in _matching_lines(path, _UCF101_LINE, example="Class/video.avi 1"):
            group = ucf101_group(found["name"])
            video = LabeledVideo(
                found["name"], found["label"], subset, group, f"UCF101's official lists, split {split}"
            )
            yield LabelRow(video, path, line)


def _hmdb51_rows(folder: Path, split: int) -> Iterator[LabelRow]:
    lists = [(path, found) for path in sorted(folder.iterdir()) if (found := _HMDB51_LIST.fullmatch(path.name))]
    lists = [(path, found) for path, found in lists if int(found["split"]) == split]
    if not lists:
        raise LabelsError(
            f"{folder}: no list of HMDB51's split {split} (<action>_test_split{split}.txt); unpack all lists"
        )
    for path, list_name in lists:
        label = list_name["label"]
        for line, found in _matching_lines(path, _HMDB51_LINE, example="video.avi 1"):
            if subset := _HMDB51_SUBSETS.get(found["use"]):
                film = found["file"].rpartition(f"_{label}_")[0] or None
                lists_name = f"HMDB51's official lists, split {split}"
                yield LabelRow(LabeledVideo(f"{label}/{found['file']}", label, subset, film, lists_name), path, line)


def _matching_lines(path: Path, pattern: re.Pattern[str], *, example: str) -> Iterator[tuple[int, re.Match[str]]]:
    for line, text in enumerate(read_text(path, error=LabelsError).splitlines(), start=1):
        if not text.strip():
            continue
        found = pattern.fullmatch(text.strip())
        if found is None:
            raise LabelsError(
                f"{path}, line {line}: expected `{example}`, got {text.strip()!r}; unpack the official list again"
            )
        yield line, found
