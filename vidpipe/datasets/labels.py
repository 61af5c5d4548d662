"""Which label each video of a store has: its folder's name, or what a CSV file or a data set's official lists say."""

import csv
import io
import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from vidpipe.datasets.official import LabelRow, read_official, read_text, ucf101_group
from vidpipe.errors import LabelsError, UsageError, count_of, unknown_name
from vidpipe.records import LabeledVideo

__all__ = ["csv_columns", "first_few", "labels_from_folders", "read_labels"]

logger = logging.getLogger(__name__)

_COLUMNS = ("video", "label", "split", "group")
_NEEDED_COLUMNS = ("video", "label")
_KINETICS_COLUMNS = ("label", "youtube_id", "time_start", "time_end")
_SPLITS = ("train", "val", "test")
_OTHER_SPELLINGS = {"validation": "val", "validate": "val", "valid": "val"}


def labels_from_folders(video_ids: Iterable[str]) -> list[LabeledVideo]:
    """Label each video with the name of the folder that it lies in.

    Where every path begins with `train/`, `val/` (or `valid/`, `validation/`) or `test/`, and there are train and
    another of them, this folder gives the split: `train/walk/a.mp4` is a training video of `walk`.

    Args:
        video_ids: Paths relative to the folder that was extracted, with `/`.

    Returns:
        A record for each video, in the order given. Its group comes from UCF101's file names, where a name is one.

    Raises:
        LabelsError: Some videos lie in no folder, or directly in one that gives the split.
    """
    video_ids = list(video_ids)
    splits = _splits_from_folders(video_ids)
    folders = {video_id: PurePosixPath(video_id).parent.name for video_id in video_ids}
    if bare := [video_id for video_id, folder in folders.items() if not folder or (splits and video_id.count("/") < 2)]:
        raise LabelsError(
            f"{count_of(len(bare), 'video')} in no folder whose name could be the label: {first_few(bare)}; "
            "put each class in a folder of its own, or give --labels FILE, a CSV with columns video,label"
        )
    return [
        LabeledVideo(video_id, label, splits.get(video_id), ucf101_group(video_id))
        for video_id, label in folders.items()
    ]


def read_labels(
    path: Path | str,
    *,
    video_ids: Collection[str],
    official_split: int = 1,
    skip_missing: bool = False,
    failed_ids: Collection[str] = (),
    group_column: str = "group",
) -> list[LabeledVideo]:
    """Read labels from a file or folder, and match them with the videos of a store.

    The name of a video matches an id that is the same, or else the one id that ends with `/` and the name: labels may
    be relative to a folder below the one that was extracted. An extension may be left out, as Kinetics does.

    Args:
        path: A CSV file with columns `video,label` and optionally `split` (train, val, test) and `group`; a Kinetics
            CSV; UCF101's or HMDB51's folder of official lists, or one of the lists.
        video_ids: The ids of the videos that have features.
        official_split: 1, 2 or 3: which split of a folder of official lists to read.
        skip_missing: Leave out, with a warning, videos that have a label but no features; else they are an error.
        failed_ids: The ids of videos known to be unreadable; these are always left out with a warning.
        group_column: The column of a CSV that names the groups.

    Returns:
        A record for each video with label and features, in the order of the labels, under the store's id.

    Raises:
        LabelsError: The labels cannot be read, contradict one another, or do not fit the videos.
        UsageError: No such path, or no such official split.
    """
    path = Path(path)
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder; labels are a CSV file with columns video,label")
    rows = read_official(path, official_split=official_split)
    if rows is None:
        rows = list(_csv_rows(path, group_column))
    if not rows:
        raise LabelsError(f"{path}: no rows; each video needs one, with its name and its label")
    return _match(rows, path, set(video_ids), set(failed_ids) - set(video_ids), skip_missing)


def csv_columns(path: Path) -> list[str]:
    """The columns that the first line of a CSV file names; none of a folder, or of a file that is not there."""
    if not path.is_file():
        return []
    return [column.strip() for column in next(csv.reader(io.StringIO(read_text(path), newline="")), [])]


def first_few(names: Collection[str], limit: int = 3) -> str:
    """Name some, count the rest: `a, b, c and 7 more`."""
    shown = ", ".join(list(names)[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown


def _splits_from_folders(video_ids: Collection[str]) -> dict[str, str]:
    """The split that the first folder of each id names; empty unless all do, and name train and another."""
    first_folders = {video_id: video_id.split("/", 1)[0].lower() for video_id in video_ids if "/" in video_id}
    splits = {video_id: _OTHER_SPELLINGS.get(folder, folder) for video_id, folder in first_folders.items()}
    named = set(splits.values())
    is_split = len(splits) == len(video_ids) and "train" in named and len(named) > 1 and named <= set(_SPLITS)
    return splits if is_split else {}


# Rows of a CSV file


def _csv_rows(path: Path, group_column: str) -> Iterator[LabelRow]:
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        columns = [column.strip() for column in reader.fieldnames or ()]
        reader.fieldnames = columns
        is_kinetics = "youtube_id" in columns and "video" not in columns
        _check_columns(path, columns, needed=_KINETICS_COLUMNS if is_kinetics else _NEEDED_COLUMNS)
        known = {*_COLUMNS, group_column}
        if not is_kinetics and (unread := [column for column in columns if column and column not in known]):
            logger.warning("%s: columns that are not read: %s; known: %s", path, ", ".join(unread), ",".join(_COLUMNS))
        for record in reader:
            place = f"{path}, line {reader.line_num}"
            cells = _checked_cells(record, place)
            video = _kinetics_video(cells, place) if is_kinetics else _video(cells, place, group_column)
            yield LabelRow(video, path, reader.line_num)
    except csv.Error as error:
        raise LabelsError(
            f"{path}, line {reader.line_num}: not a CSV file: {error}; check its quotes and commas"
        ) from error


def _check_columns(path: Path, columns: list[str], needed: tuple[str, ...]) -> None:
    if not columns:
        raise LabelsError(f"{path}: empty; its first line must name the columns {','.join(needed)}")
    if missing := [column for column in needed if column not in columns]:
        raise LabelsError(
            f"{path}: missing column {missing[0]!r}; found: {', '.join(columns)}; "
            f"needed: {','.join(needed)} in the first line, separated by commas"
        )
    if repeated := [column for column, times in Counter(columns).items() if column and times > 1]:
        raise LabelsError(f"{path}: column {repeated[0]!r} stands there more than once; keep one")


def _checked_cells(record: dict[str | Any, str | Any], place: str) -> dict[str, str]:
    if any(record.pop(None, ())):  # where csv puts what a line has beyond the header's columns
        raise LabelsError(f"{place}: more cells than columns; put double quotes around a cell that holds a comma")
    return {column: (cell or "").strip() for column, cell in record.items()}


def _video(cells: dict[str, str], place: str, group_column: str) -> LabeledVideo:
    name = _needed(cells, "video", place).replace("\\", "/").removeprefix("./")
    return LabeledVideo(name, _needed(cells, "label", place), _split(cells, place), cells.get(group_column) or None)


def _kinetics_video(cells: dict[str, str], place: str) -> LabeledVideo:
    """The file of a Kinetics clip is named `{youtube_id}_{time_start:06d}_{time_end:06d}`."""
    youtube_id = _needed(cells, "youtube_id", place)
    start, end = (_whole_seconds(cells, column, place) for column in ("time_start", "time_end"))
    name = f"{youtube_id}_{start:06d}_{end:06d}"
    return LabeledVideo(name, _needed(cells, "label", place), _split(cells, place), youtube_id)


def _needed(cells: dict[str, str], column: str, place: str) -> str:
    if not cells[column]:
        raise LabelsError(f"{place}: the cell of column {column!r} is empty; fill it in, or remove the line")
    return cells[column]


def _whole_seconds(cells: dict[str, str], column: str, place: str) -> int:
    if not cells[column].isdecimal():
        raise LabelsError(f"{place}: {column} is {cells[column]!r}; Kinetics gives whole seconds, such as 12")
    return int(cells[column])


def _split(cells: dict[str, str], place: str) -> str | None:
    cell = cells.get("split", "").lower()
    if not cell:
        return None
    split = _OTHER_SPELLINGS.get(cell, cell)
    if split not in _SPLITS:
        raise LabelsError(f"{place}: {unknown_name('split', cell, _SPLITS)}")
    return split


# Rows and videos


def _match(
    rows: list[LabelRow], path: Path, stored: set[str], failed: set[str], skip_missing: bool
) -> list[LabeledVideo]:
    """Give each row the id of its video; leave out, or refuse, what has no features."""
    rows_by_id: dict[str, LabelRow] = {}
    missing: list[str] = []
    known = stored | failed
    ids_by_name = _ids_by_name(known)
    for row in rows:
        video_id = row.video.video_id if row.video.video_id in known else _only_id(row, ids_by_name)
        if video_id is None:
            missing.append(row.video.video_id)
            continue
        row = replace(row, video=replace(row.video, video_id=video_id))
        _check_same(rows_by_id.setdefault(video_id, row), row)
    labeled = [row.video for video_id, row in rows_by_id.items() if video_id in stored]
    _report_missing(path, missing, stored, skip_missing)
    _report_left_out(path, unreadable=failed & rows_by_id.keys(), unlabeled=stored - rows_by_id.keys())
    if not labeled:
        raise LabelsError(f"{path}: none of its videos has features; extract the videos that it names first")
    return labeled


def _ids_by_name(video_ids: Iterable[str]) -> dict[str, list[str]]:
    """Every name that ids answer to: what follows any `/`, with or without the extension.

    `set1/walk/a.mp4` answers to `walk/a.mp4`, `a.mp4`, `set1/walk/a`, `walk/a` and `a`; and to itself.
    """
    ids_by_name: dict[str, list[str]] = defaultdict(list)
    for video_id in sorted(video_ids):
        for name in {video_id, str(PurePosixPath(video_id).with_suffix(""))}:
            parts = name.split("/")
            for start in range(len(parts)):
                ids_by_name["/".join(parts[start:])].append(video_id)
    return ids_by_name


def _only_id(row: LabelRow, ids_by_name: Mapping[str, list[str]]) -> str | None:
    ids = ids_by_name.get(row.video.video_id, [])
    if len(ids) > 1:
        raise LabelsError(
            f"{row.place}: {row.video.video_id!r} may be {' or '.join(map(repr, ids[:2]))}; write the whole id"
        )
    return ids[0] if ids else None


def _check_same(first: LabelRow, second: LabelRow) -> None:
    for what in ("label", "split", "group"):
        one, other = getattr(first.video, what), getattr(second.video, what)
        if one != other:
            raise LabelsError(
                f"video {first.video.video_id!r} has {what} {one!r} in {first.place}, "
                f"and {what} {other!r} in {second.place}; remove one of the lines"
            )


def _report_missing(path: Path, missing: list[str], stored: set[str], skip_missing: bool) -> None:
    if not missing:
        return
    what = f"{path}: {count_of(len(missing), 'labelled video')} without features: {first_few(missing)}"
    if not skip_missing:
        example = f" (an id in the store looks like {min(stored)!r})" if stored else ""
        raise LabelsError(f"{what}{example}; extract them, remove their rows, or pass --skip-missing")
    logger.warning("%s; left out", what)


def _report_left_out(path: Path, *, unreadable: Collection[str], unlabeled: Collection[str]) -> None:
    if unreadable:
        found = count_of(len(unreadable), "labelled video")
        logger.warning(
            "%s: %s could not be read when extracting: %s; left out", path, found, first_few(sorted(unreadable))
        )
    if unlabeled:
        found = count_of(len(unlabeled), "video")
        logger.warning("%s: %s of the store without a label: %s; left out", path, found, first_few(sorted(unlabeled)))
