"""A store's features as the input of other programs: ActionFormer, OpenTAD, and the MS-TCN family.

Each program places row k of a video in time by a formula of its own. What is written here makes it right:

    ActionFormer  (k · feat_stride + 0.5 · num_frames) / fps          libs/datasets/thumos14.py
    OpenTAD       (k · feature_stride + offset_frames) / fps, fps = frame / duration      opentad/datasets/thumos.py
    MS-TCN        a label for each row                                batch_gen.py

Times count from the first frame of a video, which index.csv has as `first_seconds`.
"""

import csv
import io
import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidpipe.datasets.intervals import LabeledInterval
from vidpipe.datasets.matching import match_names
from vidpipe.errors import LabelsError, UsageError, count_of, first_few, unknown_name
from vidpipe.features.export import plain_name
from vidpipe.features.maintenance import new_folder, sound_sequences
from vidpipe.features.new_files import write_new
from vidpipe.features.store import FeatureStore
from vidpipe.records import Segment
from vidpipe.timeline.clock import Clock, ClockedVideo, clock_of, on_clock
from vidpipe.timeline.frames import BACKGROUND, labels_at

__all__ = ["PROGRAMS", "export_for"]

logger = logging.getLogger(__name__)

_SUBSETS = {"train": "training", "val": "validation", "test": "testing"}
_ROW_FRAMES = 100
"""OpenTAD cuts segments to whole frames: a row counts as this many, so that the rounding is a hundredth of a row."""
_DROPPED_CLASS = 4
"""ActionFormer's loader for THUMOS14 drops the class of this number, and needs it to exist."""


@dataclass(frozen=True)
class _Video:
    """What is written about one video."""

    name: str
    """Its name in the other program; its feature file is `{name}.npy`."""
    video_id: str
    num_rows: int
    num_dims: int
    first_seconds: float
    duration_seconds: float
    segments: tuple[Segment, ...]
    """Their times count from the first frame."""
    subset: str
    """`training`, `validation` or `testing`."""


@dataclass(frozen=True)
class _Annotations:
    """The labels of a store's videos."""

    intervals: Mapping[str, Sequence[LabeledInterval]]
    """By the store's id."""
    missing: Sequence[str]
    """Names in the labels file that are not in the store."""

    def subset(self, video_id: str) -> str:
        """Return the video's subset; training where the labels do not state it, testing where there are none."""
        found = self.intervals.get(video_id)
        return _SUBSETS.get(found[0].split or "train", "training") if found else "testing"

    def segments(self, video_id: str, first_seconds: float) -> tuple[Segment, ...]:
        """Return the segments of a video, their times from its first frame."""
        found = (one.segment for one in self.intervals.get(video_id, ()) if one.segment is not None)
        return tuple(
            Segment(_moved(one.start_seconds, first_seconds), _moved(one.stop_seconds, first_seconds), one.label)
            for one in found
        )


def _moved(seconds: float, first_seconds: float) -> float:
    """A time from the first frame on, without the rounding error of the difference."""
    return round(seconds - first_seconds, 6)


def export_for(store: FeatureStore, folder: Path, *, program: str, intervals: Sequence[LabeledInterval] = ()) -> int:
    """Write features, annotations and settings for another program.

    Args:
        store: the features, of `--sampling fps` or of windows at a fixed stride.
        folder: a folder that is empty or does not exist. It appears once it is complete.
        program: a name of `PROGRAMS`.
        intervals: the labels. Videos without any are of the subset testing; videos whose labels state no split, of
            training.

    Returns:
        How many videos were written.

    Raises:
        UsageError: there is no such program.
        LabelsError: the labels are of other videos.
        StoreError: no formula gives the time of a row, or the folder holds something, or cannot be written.
        ShardError: something is damaged; `repair` comes first.
    """
    if program not in PROGRAMS:
        raise UsageError(unknown_name("program", program, PROGRAMS))
    clock, annotations = clock_of(store), _match(store, intervals)
    write = _WRITERS[program]
    with new_folder(folder) as aside:
        videos = [
            write.video(aside, on_clock(sequence, clock, store.key), annotations)
            for sequence in sound_sequences(store, store.ids)
        ]
        videos.sort(key=lambda one: one.video_id)
        _write_index(aside, videos, clock)
        write.settings(aside, folder.resolve(), videos, clock, annotations)
    return len(videos)


def _match(store: FeatureStore, intervals: Sequence[LabeledInterval]) -> _Annotations:
    matches = match_names((one.video_id for one in intervals), store.ids)
    found: dict[str, list[LabeledInterval]] = {}
    for one in intervals:
        if len(matches[one.video_id]) > 1:
            ids = " or ".join(repr(match.video_id) for match in matches[one.video_id][:2])
            raise LabelsError(f"{one.place}: {one.video_id!r} may be {ids}; write the full id")
        for match in matches[one.video_id]:
            found.setdefault(match.video_id, []).append(one)
    missing = [name for name, ones in matches.items() if not ones]
    if intervals and not found:
        example = f" (an id in the store looks like {min(store.ids)!r})" if len(store) else ""
        raise LabelsError(
            f"{store.path}: has none of the labelled videos: {first_few(missing)}{example}; check --labels"
        )
    if missing:
        logger.warning("%s without features: %s", count_of(len(missing), "labelled video"), first_few(missing))
    if intervals and (bare := [video_id for video_id in store.ids if video_id not in found]):
        logger.warning("%s without labels, in the subset testing: %s", count_of(len(bare), "video"), first_few(bare))
    return _Annotations(found, missing)


def _write_video(
    folder: Path, clocked: ClockedVideo, annotations: _Annotations, *, name: str, transpose: bool
) -> _Video:
    path = folder / "features" / f"{name}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    features = clocked.features.astype(np.float32)  # (T, D)
    image = io.BytesIO()
    np.save(image, np.ascontiguousarray(features.T) if transpose else features)
    write_new(path, image.getbuffer(), sync=False)
    return _Video(
        name=name,
        video_id=clocked.video_id,
        num_rows=features.shape[0],
        num_dims=features.shape[1],
        first_seconds=clocked.first_seconds,
        duration_seconds=clocked.duration_seconds,
        segments=annotations.segments(clocked.video_id, clocked.first_seconds),
        subset=annotations.subset(clocked.video_id),
    )


def _write_index(folder: Path, videos: Sequence[_Video], clock: Clock) -> None:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        ["id", "name", "num_rows", "first_seconds", "offset_seconds", "rows_per_second", "duration_seconds"]
    )
    for one in videos:
        row = [one.video_id, one.name, one.num_rows, one.first_seconds]
        writer.writerow([*row, clock.offset_seconds, clock.rows_per_second, one.duration_seconds])
    _write(folder / "index.csv", stream.getvalue())


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="")


def _labels(videos: Sequence[_Video]) -> list[str]:
    return sorted({segment.label for one in videos for segment in one.segments})


def _evaluated(videos: Sequence[_Video]) -> str:
    """The subset on which another program evaluates: testing, or else the one nearest to it that has videos."""
    subsets = {one.subset for one in videos if one.segments}
    return next((name for name in ("testing", "validation") if name in subsets), "training")


def _as_json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"


# ActionFormer and OpenTAD


def _video_by_id(folder: Path, clocked: ClockedVideo, annotations: _Annotations) -> _Video:
    return _write_video(folder, clocked, annotations, name=plain_name(clocked.video_id), transpose=False)


def _actionformer_settings(
    folder: Path, final: Path, videos: Sequence[_Video], clock: Clock, annotations: _Annotations
) -> None:
    numbers = _class_numbers(_labels(videos))
    database: dict[str, Any] = {one.name: _actionformer_video(one, clock, numbers) for one in videos}
    if placeholders := [label for label in numbers if label not in _labels(videos)]:
        unused = [{"segment": [0.0, 0.0], "label": label, "label_id": numbers[label]} for label in placeholders]
        database["(unused)"] = {"subset": "unused", "duration": 0.0, "fps": 1.0, "annotations": unused}
    _write(folder / "annotations.json", _as_json({"database": database}))
    _write(
        folder / "config.yaml",
        f"""# Row k of a video is at (k * feat_stride + 0.5 * num_frames) / fps seconds after its first frame.
# Class {_DROPPED_CLASS} and others named "(unused …)" exist because this loader drops class {_DROPPED_CLASS}.
dataset_name: thumos
train_split: ['training']
val_split: ['{_evaluated(videos)}']
dataset: {{
  json_file: {json.dumps(str(final / "annotations.json"))},
  feat_folder: {json.dumps(str(final / "features"))},
  file_prefix: ~,
  file_ext: .npy,
  num_classes: {len(numbers)},
  input_dim: {_num_dims(videos)},
  feat_stride: 1,
  num_frames: {2 * clock.offset_seconds * clock.rows_per_second:.10g},
  default_fps: {clock.rows_per_second!r},
}}
output_folder: ./ckpt/
""",
    )


def _class_numbers(labels: Sequence[str]) -> dict[str, int]:
    """Number the classes from 0 on, with a placeholder for the class that ActionFormer drops."""
    free = iter([number for number in range(len(labels) + _DROPPED_CLASS + 2) if number != _DROPPED_CLASS])
    numbers = {label: next(free) for label in labels}
    while len(numbers) < _DROPPED_CLASS:
        numbers[f"(unused {len(numbers)})"] = next(free)
    return {**numbers, f"(unused {_DROPPED_CLASS})": _DROPPED_CLASS}


def _actionformer_video(video: _Video, clock: Clock, numbers: Mapping[str, int]) -> dict[str, Any]:
    return {
        "subset": video.subset,
        "duration": video.duration_seconds,
        "fps": clock.rows_per_second,
        "annotations": [
            {"segment": [one.start_seconds, one.stop_seconds], "label": one.label, "label_id": numbers[one.label]}
            for one in video.segments
        ],
    }


def _opentad_settings(
    folder: Path, final: Path, videos: Sequence[_Video], clock: Clock, annotations: _Annotations
) -> None:
    database = {one.name: _opentad_video(one, clock) for one in videos}
    _write(folder / "annotations.json", _as_json({"database": database}))
    _write(folder / "category_idx.txt", "".join(f"{label}\n" for label in _labels(videos)))
    _write(folder / "missing_files.txt", "".join(f"{name}\n" for name in annotations.missing))
    offset_frames = round(clock.offset_seconds * clock.rows_per_second * _ROW_FRAMES)
    parts = (("train", "training", False), ("val", _evaluated(videos), False), ("test", _evaluated(videos), True))
    _write(
        folder / "dataset.py",
        f"""# Row k of a video is at (k * feature_stride + offset_frames) / fps seconds after its first frame, where
# fps = frame / duration. A row counts as {_ROW_FRAMES} frames, because OpenTAD cuts segments to whole frames.
dataset_type = "ThumosPaddingDataset"
annotation_path = {str(final / "annotations.json")!r}
class_map = {str(final / "category_idx.txt")!r}
data_path = {str(final / "features")!r}
block_list = {str(final / "missing_files.txt")!r}
"""
        + "dataset = dict(\n"
        + "".join(_opentad_part(*part, offset_frames) for part in parts)
        + ")\n",
    )


def _opentad_part(name: str, subset: str, is_test: bool, offset_frames: int) -> str:
    return f"""    {name}=dict(
        type=dataset_type,
        ann_file=annotation_path,
        subset_name={subset!r},
        block_list=block_list,
        class_map=class_map,
        data_path=data_path,
        filter_gt=False,
        test_mode={is_test},
        feature_stride={_ROW_FRAMES},
        sample_stride=1,
        offset_frames={offset_frames},
        pipeline=[dict(type="LoadFeats", feat_format="npy")],  # and the steps that your model needs
    ),
"""


def _opentad_video(video: _Video, clock: Clock) -> dict[str, Any]:
    frames_per_second = clock.rows_per_second * _ROW_FRAMES
    duration = video.duration_seconds or video.num_rows / clock.rows_per_second
    return {
        "subset": video.subset,
        "duration": duration,
        "frame": duration * frames_per_second,
        "annotations": [
            {"segment": [one.start_seconds, one.stop_seconds], "label": one.label} for one in video.segments
        ],
    }


def _num_dims(videos: Sequence[_Video]) -> int:
    return videos[0].num_dims if videos else 0


# MS-TCN


def _mstcn_video(folder: Path, clocked: ClockedVideo, annotations: _Annotations) -> _Video:
    name = _flat_name(clocked.video_id)
    if (folder / "features" / f"{name}.npy").exists():
        raise LabelsError(f"{clocked.video_id!r} and another video are both {name!r} for MS-TCN; rename one of them")
    return _write_video(folder, clocked, annotations, name=name, transpose=True)


def _flat_name(video_id: str) -> str:
    """`b/a.mp4` -> `b_a_mp4`: MS-TCN cuts names at the first dot, and writes all results into one folder."""
    return re.sub(r"[^\w-]+", "_", plain_name(video_id))


def _mstcn_settings(
    folder: Path, final: Path, videos: Sequence[_Video], clock: Clock, annotations: _Annotations
) -> None:
    labels = [BACKGROUND, *(label for label in map(_word, _labels(videos)) if label != BACKGROUND)]
    _write(folder / "mapping.txt", "".join(f"{number} {label}\n" for number, label in enumerate(dict.fromkeys(labels))))
    for one in videos:
        found = labels_at(one.segments, clock.times(one.num_rows))
        _write(folder / "groundTruth" / f"{one.name}.txt", "".join(f"{_word(label)}\n" for label in found))
    for subset, name in (("training", "train"), ("validation", "val"), ("testing", "test")):
        lines = (f"{one.name}.txt\n" for one in videos if one.subset == subset)
        _write(folder / "splits" / f"{name}.split1.bundle", "".join(lines))


def _word(label: str) -> str:
    """`pour water` -> `pour_water`: mapping.txt separates number and label with a space."""
    return "_".join(label.split())


@dataclass(frozen=True)
class _Writer:
    """How a program's files are written."""

    video: Callable[[Path, ClockedVideo, _Annotations], _Video]
    settings: Callable[[Path, Path, Sequence[_Video], Clock, _Annotations], None]


_WRITERS: Mapping[str, _Writer] = {
    "actionformer": _Writer(_video_by_id, _actionformer_settings),
    "opentad": _Writer(_video_by_id, _opentad_settings),
    "mstcn": _Writer(_mstcn_video, _mstcn_settings),
}
PROGRAMS = tuple(_WRITERS)
"""The programs for which features can be exported."""
