"""Exports for ActionFormer, OpenTAD and MS-TCN: each one's own formula for a row's time gives the row's time."""

import csv
import json
import re
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.commands import LENET, run
from tests.media import write_video
from tests.stores import KEY, make_sequence, make_store
from vidpipe.cli.store import export as command
from vidpipe.config import Sampling
from vidpipe.datasets.intervals import LabeledInterval
from vidpipe.errors import LabelsError, StoreError, UsageError
from vidpipe.features.store import FeatureStore
from vidpipe.records import FeatureSequence, Rows, Segment, Window
from vidpipe.timeline.exports import PROGRAMS, export_for
from vidpipe.video.windows import plan_dense_windows, plan_windows

HEADER = "video,start_seconds,stop_seconds,label,split"
LABELS = (
    "walk/a.mp4,0.5,1.5,wave hand,train",
    "walk/a.mp4,1.5,2.2,run,train",
    "late.mp4,0.9,1.6,run,test",
    "gone.mp4,0,1,run,train",
)
FPS = 5


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """At 5 rows a second: a video at 25 fps, one whose first frame is at 0.4 s, one that holds frames for long."""
    folder = tmp_path_factory.mktemp("exports")
    write_video(folder / "v/walk/a.mp4", 60)
    write_video(folder / "v/late.mp4", 40, pts_ms=[400 + 40 * number for number in range(40)])
    held = [0, 40, 80, 120, 900, 940, 2100, 2140]
    write_video(folder / "v/held.mp4", 8, pts_ms=held)
    extracted = run("extract", folder / "v", "-o", folder / "store", "--sampling", "fps", "--fps", FPS, *LENET)
    assert extracted.exit_code == 0, extracted.output
    (folder / "labels.csv").write_text("\n".join([HEADER, *LABELS]) + "\n")
    return FeatureStore.open(folder / "store")


@pytest.fixture(scope="module")
def exported(store: FeatureStore) -> Path:
    """The three exports, made by the command."""
    folder = store.path.parent / "exported"
    for program in PROGRAMS:
        chosen = ("store", "export", store.path, "-o", folder / program, "--for", program)
        result = run(*chosen, "--labels", store.path.parent / "labels.csv")
        assert (result.exit_code, result.stdout) == (0, f"{folder / program}: 3 videos\n"), result.output
        assert "1 labelled video without features: gone.mp4" in result.stderr
        assert "1 video without labels, in the subset testing: held.mp4" in result.stderr
    return folder


def load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def yaml_value(path: Path, name: str) -> str:
    (found,) = re.findall(rf"^ *{name}: (.*?),?$", path.read_text(), flags=re.MULTILINE)
    return str(found)


def index(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "index.csv").open(newline="", encoding="utf-8") as stream:
        return {row["id"]: row for row in csv.DictReader(stream)}


def actionformer_times(folder: Path, name: str, num_rows: int) -> Any:
    """Where `grid = (t * fps - 0.5 * num_frames) / feat_stride` is k."""
    stride, frames = (float(yaml_value(folder / "config.yaml", key)) for key in ("feat_stride", "num_frames"))
    fps = load(folder / "annotations.json")["database"][name]["fps"]
    assert fps == float(yaml_value(folder / "config.yaml", "default_fps"))
    return (np.arange(num_rows) * stride + 0.5 * frames) / fps


def opentad_times(folder: Path, name: str, num_rows: int) -> Any:
    """Where `grid = (t * frame / duration - offset_frames) / int(feature_stride * sample_stride)` is k."""
    part = runpy.run_path(str(folder / "dataset.py"))["dataset"]["train"]
    video = load(folder / "annotations.json")["database"][name]
    stride = int(part["feature_stride"] * part["sample_stride"])
    return (np.arange(num_rows) * stride + int(part["offset_frames"])) / (video["frame"] / video["duration"])


TIMES = {"actionformer": actionformer_times, "opentad": opentad_times}


@pytest.mark.parametrize("program", TIMES)
def test_each_programs_formula_gives_the_time_of_each_row(exported: Path, store: FeatureStore, program: str) -> None:
    for video_id in store.ids:
        row = index(exported / program)[video_id]
        features = np.load(exported / program / "features" / f"{row['name']}.npy")
        times = TIMES[program](exported / program, row["name"], len(features)) + float(row["first_seconds"])
        shown = np.searchsorted(store[video_id].pts_seconds, times + 1e-6, side="right") - 1
        assert np.array_equal(features, store[video_id].features[shown])  # the frame on screen at that time
        if video_id != "held.mp4":
            assert np.allclose(times, store[video_id].pts_seconds, atol=1 / 25, rtol=0)
            assert np.all(times > store[video_id].pts_seconds - 1e-6)


def test_a_frame_that_is_held_is_in_each_row_of_its_time(exported: Path, store: FeatureStore) -> None:
    features = np.load(exported / "actionformer/features/held.mp4.npy")
    assert len(store["held.mp4"]) < len(features) == int(np.ceil(store.info("held.mp4").duration_seconds * FPS - 1e-5))
    assert np.array_equal(features[5], features[9])  # 1 s to 1.8 s: the frame of 0.94 s
    assert not np.array_equal(features[4], features[5])


@pytest.mark.parametrize("program", TIMES)
def test_segments_lie_on_the_rows_that_show_them(exported: Path, store: FeatureStore, program: str) -> None:
    """Annotated times minus the first frame's: what both loaders place on the grid of rows."""
    database = load(exported / program / "annotations.json")["database"]
    assert [one["segment"] for one in database["walk/a.mp4"]["annotations"]] == [[0.5, 1.5], [1.5, 2.2]]
    (late,) = database["late.mp4"]["annotations"]
    assert late["segment"] == pytest.approx([0.9 - 0.4, 1.6 - 0.4])
    assert {name: one["subset"] for name, one in database.items() if name != "(unused)"} == {
        "walk/a.mp4": "training",
        "late.mp4": "testing",
        "held.mp4": "testing",
    }


def test_actionformers_loader_keeps_every_class_and_finds_every_file(exported: Path) -> None:
    """The rules of `THUMOS14Dataset._load_json_db`: class 4 is dropped, and as many labels as classes are needed."""
    folder = exported / "actionformer"
    database = load(folder / "annotations.json")["database"]
    numbers = {one["label"]: one["label_id"] for video in database.values() for one in video["annotations"]}
    assert len(numbers) == int(yaml_value(folder / "config.yaml", "num_classes")) == len(set(numbers.values()))
    assert sorted(numbers.values()) == list(range(len(numbers)))
    assert {4, numbers["run"], numbers["wave hand"]} <= set(numbers.values())
    assert 4 not in (numbers["run"], numbers["wave hand"])
    splits = yaml_value(folder / "config.yaml", "train_split") + yaml_value(folder / "config.yaml", "val_split")
    used = [name for name, video in database.items() if video["subset"].lower() in splits]
    assert sorted(used) == ["held.mp4", "late.mp4", "walk/a.mp4"]
    features = Path(json.loads(yaml_value(folder / "config.yaml", "feat_folder")))
    for name in used:
        assert np.load(features / f"{name}.npy").shape[1] == int(yaml_value(folder / "config.yaml", "input_dim"))


def test_more_than_four_classes_have_numbers_without_the_one_that_is_dropped(tmp_path: Path) -> None:
    labels = [Segment(number, number + 1.0, f"class{number}") for number in range(7)]
    intervals = [LabeledInterval("a.mp4", one, "l.csv, line 2") for one in labels]
    export_for(fps_store(tmp_path / "s"), tmp_path / "out", program="actionformer", intervals=intervals)
    database = load(tmp_path / "out/annotations.json")["database"]
    assert [one["label_id"] for one in database["a.mp4"]["annotations"]] == [0, 1, 2, 3, 5, 6, 7]
    assert [one["label_id"] for one in database["(unused)"]["annotations"]] == [4]
    assert yaml_value(tmp_path / "out/config.yaml", "num_classes") == "8"


def test_opentad_has_its_class_map_and_the_videos_that_lack_features(exported: Path) -> None:
    folder = exported / "opentad"
    assert (folder / "category_idx.txt").read_text() == "run\nwave hand\n"
    assert (folder / "missing_files.txt").read_text() == "gone.mp4\n"
    settings = runpy.run_path(str(folder / "dataset.py"))["dataset"]
    assert {name: part["subset_name"] for name, part in settings.items()} == {
        "train": "training",
        "val": "testing",
        "test": "testing",
    }
    assert Path(settings["train"]["data_path"], "walk/a.mp4.npy").is_file()


def test_mstcns_reader_finds_a_label_for_each_row(exported: Path, store: FeatureStore) -> None:
    """As `BatchGenerator` reads: names cut at the first dot, (D, T), the text after the last newline dropped."""
    folder = exported / "mstcn"
    numbers = {line.split()[1]: int(line.split()[0]) for line in (folder / "mapping.txt").read_text().split("\n")[:-1]}
    assert numbers == {"background": 0, "run": 1, "wave_hand": 2}
    read = {}
    for split in ("train", "test"):
        for name in (folder / f"splits/{split}.split1.bundle").read_text().split("\n")[:-1]:
            features = np.load(folder / "features" / (name.split(".")[0] + ".npy"))
            labels = (folder / "groundTruth" / name).read_text().split("\n")[:-1]
            assert features.shape == (store["late.mp4"].features.shape[1], len(labels))
            read[name] = labels
    assert sorted(read) == ["held_mp4.txt", "late_mp4.txt", "walk_a_mp4.txt"]
    pts_seconds = store["walk/a.mp4"].pts_seconds
    expected = ["wave_hand" if 0.5 <= t < 1.5 else "run" if 1.5 <= t < 2.2 else "background" for t in pts_seconds]
    assert read["walk_a_mp4.txt"] == expected
    pts_seconds = store["late.mp4"].pts_seconds
    assert read["late_mp4.txt"] == ["run" if 0.9 <= t < 1.6 else "background" for t in pts_seconds]


def fps_store(path: Path, sampling: Sampling | None = None, grid: int = 1) -> FeatureStore:
    key = replace(KEY, sampling=(sampling or Sampling("fps", fps=2.0)).as_dict(), grid=grid)
    created = FeatureStore.create(path, key)
    if grid == 1:
        with created.writer() as writer:
            writer.add(make_sequence("a.mp4"))
    return FeatureStore.open(path)


@pytest.mark.parametrize("window_fps", [10.0, None])
@pytest.mark.parametrize("program", TIMES)
def test_windows_at_a_stride_are_at_their_centres(tmp_path: Path, program: str, window_fps: float | None) -> None:
    """The planner places the windows; each row's feature is the time of its centre."""
    window = Window(num_frames=9, fps=window_fps, min_frames=1, stride_seconds=0.4)
    created = FeatureStore.create(tmp_path / "s", replace(KEY, window=window.as_dict()))
    pts_seconds = 0.2 + np.arange(130) / 25
    rows = plan_dense_windows(window, pts_seconds, pts_seconds[-1] + 0.04).rows
    info = replace(make_sequence("a.mp4").info, duration_seconds=130 / 25, num_frames=130)
    with created.writer() as writer:
        writer.add(FeatureSequence("a.mp4", rows.pts_seconds[:, None].astype(np.float32), rows, info))
    assert export_for(FeatureStore.open(tmp_path / "s"), tmp_path / "out", program=program) == 1
    features = np.load(tmp_path / "out/features/a.mp4.npy")
    late = TIMES[program](tmp_path / "out", "a.mp4", len(features)) + 0.2 - features[:, 0]
    assert len(rows) - 1 <= len(features)
    assert np.all(late > -1e-3)
    assert np.all(late < 1 / 25 + 1e-3)


def test_windows_around_sampled_frames_contain_the_time_of_their_row(tmp_path: Path) -> None:
    """At the ends of a video the planner moves windows inward: several rows then have the same one."""
    window = Window(num_frames=8, fps=10.0, min_frames=1)
    key = replace(KEY, sampling=Sampling("fps", fps=5.0).as_dict(), window=window.as_dict())
    pts_seconds = np.arange(100) / 25
    sampled = np.arange(0, 100, 5)
    centres = Rows(pts_seconds=pts_seconds[sampled], frame_index=sampled, scene_index=np.zeros(20, np.int32))
    rows = plan_windows(centres, window, pts_seconds, 4.0).rows
    info = replace(make_sequence("a.mp4").info, duration_seconds=4.0, num_frames=100)
    assert rows.start_seconds is not None
    assert rows.stop_seconds is not None
    features = np.column_stack([rows.start_seconds, rows.stop_seconds]).astype(np.float32)
    created = FeatureStore.create(tmp_path / "s", key)
    with created.writer() as writer:
        writer.add(FeatureSequence("a.mp4", features, rows, info))
    export_for(FeatureStore.open(tmp_path / "s"), tmp_path / "out", program="actionformer")
    start, stop = np.load(tmp_path / "out/features/a.mp4.npy").T
    times = actionformer_times(tmp_path / "out", "a.mp4", len(start))
    assert len(rows) < len(start) == 20
    assert np.all((start - 1e-6 <= times) & (times < stop))


def test_stores_whose_rows_no_formula_places_are_refused(tmp_path: Path) -> None:
    uniform = make_store(tmp_path / "u", [make_sequence("a.mp4")])
    scene = fps_store(tmp_path / "c", Sampling("scene", num_frames=4))
    for store in (uniform, scene):
        with pytest.raises(StoreError, match="extract again with --sampling fps"):
            export_for(store, tmp_path / "out", program="opentad")
    with pytest.raises(StoreError, match="extract without --grid"):
        export_for(fps_store(tmp_path / "g", grid=2), tmp_path / "out", program="opentad")
    assert not (tmp_path / "out").exists()


def test_labels_of_other_videos_are_refused(tmp_path: Path) -> None:
    intervals = [LabeledInterval("b.mp4", Segment(0.0, 1.0, "x"), "l.csv, line 2")]
    with pytest.raises(
        LabelsError, match=r"none of the labelled videos: b.mp4 \(an id in the store looks like 'a.mp4'"
    ):
        export_for(fps_store(tmp_path / "s"), tmp_path / "out", program="mstcn", intervals=intervals)


def test_a_store_without_labels_is_exported_for_prediction(tmp_path: Path) -> None:
    store = fps_store(tmp_path / "s")
    for program in PROGRAMS:
        result = run("store", "export", store.path, "-o", tmp_path / program, "--for", program)
        assert result.exit_code == 0, result.output
        assert "without --labels, the videos have no annotations" in result.stderr
    assert load(tmp_path / "opentad/annotations.json")["database"]["a.mp4"]["annotations"] == []
    assert (tmp_path / "mstcn/splits/test.split1.bundle").read_text() == "a_mp4.txt\n"


def test_what_is_given_wrongly_is_refused(tmp_path: Path) -> None:
    store = fps_store(tmp_path / "s")
    with pytest.raises(UsageError, match="unknown program 'bmn'"):
        export_for(store, tmp_path / "out", program="bmn")
    refused = run("store", "export", store.path, "-o", tmp_path / "out", "--labels", tmp_path / "l.csv")
    assert (refused.exit_code, "--labels goes with --for" in refused.stderr) == (2, True)
    choices = {option.name: getattr(option.type, "choices", None) for option in command.params}
    assert tuple(choices["program"] or ()) == PROGRAMS
