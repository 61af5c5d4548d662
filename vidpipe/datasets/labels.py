"""Read the labels of videos: from folder names, a CSV file, or the official lists of a data set."""

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from vidpipe.csv_files import Table, is_url, read_table
from vidpipe.datasets.cells import OTHER_SPELLINGS, Cells, as_label
from vidpipe.datasets.matching import Match, match_names, nearest_ids
from vidpipe.datasets.official import LabelRow, is_official, read_official, ucf101_group
from vidpipe.datasets.splits import SUBSETS
from vidpipe.errors import LabelsError, UsageError, count_of, first_few
from vidpipe.records import NONE_OF_THESE, LabeledVideo

__all__ = ["labels_from_folders", "labels_table", "read_labels"]

logger = logging.getLogger(__name__)

_COLUMNS = ("video", "label", "split", "group")
_KINETICS_COLUMNS = ("youtube_id", "time_start", "time_end")
_CLUSTER_COLUMN = "cluster"
"""Of the table of `search clusters`, whose videos without a label are left out."""
_PREDICTED_COLUMNS = re.compile(r"cluster|probability|path|status|error|rank|(?:label|probability)_\d+")


def _warn(message: str) -> None:
    logger.warning("%s", message)


def labels_from_folders(video_ids: Iterable[str]) -> list[LabeledVideo]:
    """Label each video with the name of the folder that it lies in.

    Where every path begins with `train/`, `val/` (or `valid/`, `validation/`) or `test/`, and train and another of
    them occur, this folder gives the split: `train/walk/a.mp4` is a training video of `walk`.

    Args:
        video_ids: paths relative to the folder that was extracted, with `/`.

    Returns:
        A record for each video, in the order given. Files named as in UCF101 get the group that their name gives.

    Raises:
        LabelsError: some videos are in no folder, or directly in one that gives the split.
    """
    video_ids = list(video_ids)
    splits = _splits_from_folders(video_ids)
    folders = {video_id: as_label(PurePosixPath(video_id).parent.name) for video_id in video_ids}
    if bare := [video_id for video_id, folder in folders.items() if not folder or (splits and video_id.count("/") < 2)]:
        raise LabelsError(
            f"{count_of(len(bare), 'video')} in no folder whose name could be the label: {first_few(bare)}; "
            "put each class in a folder of its own, or give --labels FILE, a CSV with columns video,label"
        )
    if alike := _alike_labels(Counter(folders.values())):
        _warn(f"labels that differ only in case or spacing are different classes: {alike}; rename the folders of one")
    source = _folders_source(video_ids) if splits else ""
    return [
        LabeledVideo(video_id, label, splits.get(video_id), ucf101_group(video_id), source)
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
    video_column: str | None = None,
    label_column: str | None = None,
) -> list[LabeledVideo]:
    """Read labels from a file or folder, and match them with the videos of a store.

    `vidpipe.datasets.matching` defines which names match which ids.

    Args:
        path: a CSV file with columns `video,label` and optionally `split` (train, val, test) and `group`; a Kinetics
            CSV; UCF101's or HMDB51's folder of official lists, or one of the lists.
        video_ids: the ids of the videos that have features.
        official_split: 1, 2 or 3: which split of a folder of official lists to read.
        skip_missing: leave out videos that have a label but no features, with a warning; without it, they are an error.
        failed_ids: the ids of videos that could not be extracted; they are always left out, with a warning.
        group_column: the column of a CSV that names the groups.
        video_column: the column of a CSV that names the videos; None finds `video`, or a usual name for it.
        label_column: the column of a CSV that holds the labels; None finds `label`, or a usual name for it.

    Returns:
        A record for each video with label and features, in the order of the labels, with the store's id.

    Raises:
        LabelsError: the labels cannot be read, contradict one another, or do not fit the videos.
        UsageError: there is no such path, official split or column.
    """
    _check_there(path)
    path = Path(path)
    rows = read_official(path, official_split=official_split)
    if rows is None:
        table = read_table(path, error=LabelsError)
        rows = _csv_rows(table, group_column, video_column, label_column)
    if not rows:
        raise LabelsError(f"{path}: no rows; each video needs one, with its name and its label")
    return _match(rows, path, set(video_ids), set(failed_ids) - set(video_ids), skip_missing)


def labels_table(path: Path | str) -> Table | None:
    """Read a labels file as a table.

    Args:
        path: the labels file, or official lists.

    Returns:
        The table; None for official lists, which have no columns.

    Raises:
        LabelsError: the file cannot be read.
        UsageError: there is no such path.
    """
    _check_there(path)
    return None if is_official(Path(path)) else read_table(Path(path), error=LabelsError)


def _check_there(path: Path | str) -> None:
    if is_url(str(path)):
        raise UsageError(f"{path}: URLs are not read; download the file, and name it here")
    if not Path(path).exists():
        raise UsageError(f"{path}: no such file or folder; labels are a CSV file with columns video,label")


def _alike_labels(num_videos: Mapping[str, int]) -> str:
    """Describe labels that are probably one class: `'Thin' (3 videos), 'thin' (1 video)`; empty without any."""
    variants: dict[str, list[str]] = defaultdict(list)
    for label in sorted(num_videos):
        variants[re.sub(r"[\s_-]+", " ", label.casefold())].append(label)
    alike = [labels for labels in variants.values() if len(labels) > 1]
    described = [
        ", ".join(f"{label!r} ({count_of(num_videos[label], 'video')})" for label in labels) for labels in alike
    ]
    return first_few(described, separator="; ")


def _splits_from_folders(video_ids: Collection[str]) -> dict[str, str]:
    """The split that the first folder of each id names; empty unless all name one, and train and another occur."""
    first_folders = {video_id: video_id.split("/", 1)[0].lower() for video_id in video_ids if "/" in video_id}
    splits = {video_id: OTHER_SPELLINGS.get(folder, folder) for video_id, folder in first_folders.items()}
    named = set(splits.values())
    is_split = len(splits) == len(video_ids) and "train" in named and len(named) > 1 and named <= set(SUBSETS)
    return splits if is_split else {}


def _folders_source(video_ids: Collection[str]) -> str:
    """`the folders train/ and test/`"""
    *first, last = sorted({f"{video_id.split('/', 1)[0]}/" for video_id in video_ids}, reverse=True)
    return f"the folders {', '.join(first)} and {last}"


# Rows of a CSV file


def _csv_rows(table: Table, group_column: str, video_column: str | None, label_column: str | None) -> list[LabelRow]:
    video = table.column("video", video_column)
    is_kinetics = video is None and table.named("youtube_id") is not None
    names = {name: _kinetics_column(table, name) for name in _KINETICS_COLUMNS} if is_kinetics else {}
    columns = {
        **(names or {"video": table.need("video", video)}),
        "label": table.need("label", label_column),
        "split": table.column("split"),
        "group": table.named(group_column),
    }
    if not is_kinetics:
        _warn_of_unread(table, columns.values())
    read = _kinetics_video if is_kinetics else _video
    cells = [Cells(row, columns, table.path) for row in table.rows()]
    if table.named(_CLUSTER_COLUMN) is not None:
        cells = _named(cells, table.path)
    rows = [LabelRow(read(one), table.path, one.row.line) for one in cells]
    known = [row for row in rows if row.video.label != NONE_OF_THESE]
    if num_unknown := len(rows) - len(known):
        _warn(f"{table.path}: {count_of(num_unknown, 'video')} labelled {NONE_OF_THESE!r}, as predict does; left out")
    if alike := _alike_labels(Counter(row.video.label for row in known)):
        raise LabelsError(
            f"{table.path}: labels that differ only in case or spacing: {alike}; write each class in one way"
        )
    return known


def _named(rows: Iterable[Cells], path: Path) -> list[Cells]:
    """The rows of a table of clusters that have a label."""
    rows = list(rows)
    named = [row for row in rows if row.get("label")]
    if num_unnamed := len(rows) - len(named):
        _warn(f"{path}: {count_of(num_unnamed, 'video')} without a label, in no cluster or in an unnamed one; left out")
    return named


def _kinetics_column(table: Table, name: str) -> str:
    found = table.named(name)
    if found is None:
        raise LabelsError(f"{table.path}: missing column {name!r}; a Kinetics CSV has {','.join(_KINETICS_COLUMNS)}")
    return found


def _warn_of_unread(table: Table, read: Iterable[str | None]) -> None:
    known = set(read)
    unread = [column for column in table.columns if column and column not in known]
    if unread := [column for column in unread if not _PREDICTED_COLUMNS.fullmatch(column)]:
        _warn(f"{table.path}: columns that are not read: {', '.join(unread)}; known: {','.join(_COLUMNS)}")


def _video(cells: Cells) -> LabeledVideo:
    return cells.as_video(cells.need("video"), cells.get("group") or None)


def _kinetics_video(cells: Cells) -> LabeledVideo:
    """The file of a Kinetics clip is named `{youtube_id}_{time_start:06d}_{time_end:06d}`."""
    youtube_id = cells.need("youtube_id")
    start, end = (cells.whole_seconds(column) for column in ("time_start", "time_end"))
    return cells.as_video(f"{youtube_id}_{start:06d}_{end:06d}", cells.get("group") or youtube_id)


# Rows and videos


def _match(
    rows: list[LabelRow], path: Path, stored: set[str], failed: set[str], skip_missing: bool
) -> list[LabeledVideo]:
    """Give each row the id of its video; leave out or refuse rows whose video has no features."""
    rows_by_id: dict[str, LabelRow] = {}
    missing: list[str] = []
    matches = match_names((row.video.video_id for row in rows), stored | failed)
    for row in rows:
        match = _only_match(row, matches[row.video.video_id])
        if match is None:
            missing.append(row.video.video_id)
            continue
        first = rows_by_id.setdefault(match.video_id, row)
        _check_one_folder(match, first, matches[first.video.video_id][0], row)
        _check_same(match.video_id, first, row)
    _warn_of_folders(path, {found[0].folder for found in matches.values() if found} - {""})
    labeled = [replace(row.video, video_id=video_id) for video_id, row in rows_by_id.items() if video_id in stored]
    _report_missing(path, missing, stored, skip_missing)
    _report_left_out(path, unreadable=failed & rows_by_id.keys(), unlabeled=stored - rows_by_id.keys())
    if not labeled:
        raise LabelsError(f"{path}: none of its videos has features; extract the videos that it names first")
    return labeled


def _only_match(row: LabelRow, matches: list[Match]) -> Match | None:
    if len(matches) > 1:
        ids = " or ".join(repr(match.video_id) for match in matches[:2])
        raise LabelsError(f"{row.place}: {row.video.video_id!r} may be {ids}; write the full id")
    return matches[0] if matches else None


def _check_one_folder(match: Match, first: LabelRow, first_match: Match, row: LabelRow) -> None:
    """Refuse two paths that end alike: they are two videos, and at most one of them is the stored one."""
    if match.folder != first_match.folder:
        raise LabelsError(
            f"{first.video.video_id!r} in {first.place} and {row.video.video_id!r} in {row.place} both end like the "
            f"stored video {match.video_id!r}; extract the folder that holds both, or remove one of the lines"
        )


def _warn_of_folders(path: Path, folders: Collection[str]) -> None:
    if len(folders) > 1:
        _warn(
            f"{path}: videos are matched by the ends of their paths, whose beginnings differ: "
            f"{first_few(sorted(folders))}; check that the store holds the videos of all these folders"
        )


def _check_same(video_id: str, first: LabelRow, second: LabelRow) -> None:
    for what in ("label", "split", "group"):
        one, other = getattr(first.video, what), getattr(second.video, what)
        if one != other:
            raise LabelsError(
                f"video {video_id!r} has {what} {one!r} in {first.place}, "
                f"and {what} {other!r} in {second.place}; remove one of the lines"
            )


def _report_missing(path: Path, missing: list[str], stored: set[str], skip_missing: bool) -> None:
    if not missing:
        return
    what = f"{path}: {count_of(len(missing), 'labelled video')} without features: {first_few(missing)}"
    if skip_missing:
        _warn(f"{what}; left out{_offer(missing, stored)}")
        return
    example = f" (an id in the store looks like {min(stored)!r})" if stored else ""
    urls = "; URLs are not read: download the videos first" if any(map(is_url, missing)) else ""
    raise LabelsError(
        f"{what}{_offer(missing, stored) or example}{urls}; extract them, remove their rows, or pass --skip-missing"
    )


def _offer(missing: list[str], stored: set[str]) -> str:
    """`; did you mean 'fight/A.MP4' for 'fight/a.mp4'?`, where only case or extension differs."""
    nearest = list(nearest_ids(missing, stored).items())
    others = f" ({len(nearest) - 1} more differ only in case or extension)" if len(nearest) > 1 else ""
    return "".join(f"; did you mean {video_id!r} for {name!r}?{others}" for name, video_id in nearest[:1])


def _report_left_out(path: Path, *, unreadable: Collection[str], unlabeled: Collection[str]) -> None:
    if unreadable:
        found = count_of(len(unreadable), "labelled video")
        _warn(f"{path}: {found} could not be read when extracting: {first_few(sorted(unreadable))}; left out")
    if unlabeled:
        found = count_of(len(unlabeled), "video")
        _warn(f"{path}: {found} of the store without a label: {first_few(sorted(unlabeled))}; left out")
