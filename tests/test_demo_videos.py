import csv
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from vidpipe.demo.figures import ACTIONS, pose
from vidpipe.demo.videos import join_videos, write_demo_videos
from vidpipe.errors import UsageError

PAIRS = [
    ("walk_right", "walk_left"),
    ("squat_down", "stand_up"),
    ("raise_arms", "lower_arms"),
    ("wave_then_jump", "jump_then_wave"),
]
NUM_GROUPS = 3


@dataclass(frozen=True)
class Decoded:
    pictures: NDArray[np.uint8]
    """(T, H, W, 3) RGB."""
    frame_rate: Fraction | None
    declared_frames: int
    """As the container's header says."""
    all_key_frames: bool


def decode(path: Path) -> Decoded:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        return Decoded(
            pictures=np.stack([frame.to_ndarray(format="rgb24") for frame in frames]),
            frame_rate=stream.average_rate,
            declared_frames=stream.frames,
            all_key_frames=all(frame.key_frame for frame in frames),
        )


def read_labels(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module", autouse=True)
def short_videos() -> Iterator[None]:
    """As few frames as 16 samples leave, to write them fast."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vidpipe.demo.videos.NUM_FRAMES", (16, 22))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    assert write_demo_videos(folder, num_groups=NUM_GROUPS, seed=5) == folder / "labels.csv"
    return folder


@pytest.fixture(scope="module")
def decoded(folder: Path) -> dict[tuple[str, str], Decoded]:
    """By label and group."""
    return {(row["label"], row["group"]): decode(folder / row["video"]) for row in read_labels(folder / "labels.csv")}


def test_every_action_is_half_of_a_pair() -> None:
    assert sorted(action for pair in PAIRS for action in pair) == sorted(ACTIONS)


@pytest.mark.parametrize(("action", "reverse"), PAIRS)
def test_a_pair_takes_the_same_poses_in_reverse_order(action: str, reverse: str) -> None:
    phases = [i / 58 for i in range(59)]
    poses = [pose(action, phase) for phase in phases]
    assert poses == [pose(reverse, phase) for phase in reversed(phases)]
    assert poses != poses[::-1]


@pytest.mark.parametrize("action", ACTIONS)
def test_bones_keep_their_length_and_feet_stay_above_ground(action: str) -> None:
    rest = pose("raise_arms", 0.0)
    for joints in (pose(action, phase) for phase in np.linspace(0, 1, 41)):
        for arm, arm_at_rest in zip(joints.arms, rest.arms, strict=True):
            for start, end in ((0, 1), (1, 2)):
                length = np.subtract(arm[end], arm[start])
                assert np.hypot(*length) == pytest.approx(np.hypot(*np.subtract(arm_at_rest[end], arm_at_rest[start])))
        for hip, knee, foot in joints.legs:
            assert np.hypot(*np.subtract(knee, hip)) == pytest.approx(np.hypot(*np.subtract(foot, knee)))
            assert foot[1] >= 0


@pytest.mark.parametrize("action", ACTIONS)
def test_a_figure_moves_without_leaps_in_time(action: str) -> None:
    heads_and_hands = [
        (*joints.head, *joints.arms[0][2], *joints.arms[1][2], joints.along)
        for joints in (pose(action, phase) for phase in np.linspace(0, 1, 201))
    ]
    assert np.abs(np.diff(heads_and_hands, axis=0)).max() < 0.06


def test_an_unknown_action_is_named_with_the_nearest_known() -> None:
    with pytest.raises(UsageError, match="did you mean 'walk_left'"):
        pose("walk_lift", 0.0)


def test_the_labels_list_every_video_once(folder: Path) -> None:
    rows = read_labels(folder / "labels.csv")
    assert list(rows[0]) == ["video", "label", "split", "group"]
    written = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.mp4"))
    assert [row["video"] for row in rows] == written
    assert len(rows) == NUM_GROUPS * len(ACTIONS)
    assert all(row["video"] == f"{row['label']}/{row['label']}_{row['group']}.mp4" for row in rows)


def test_a_group_is_in_one_split_with_every_action(folder: Path) -> None:
    splits, labels = defaultdict(set), defaultdict(list)
    for row in read_labels(folder / "labels.csv"):
        splits[row["group"]].add(row["split"])
        labels[row["group"]].append(row["label"])
    assert sorted(split for (split,) in splits.values()) == ["test", "train", "val"]
    assert all(sorted(of_group) == sorted(ACTIONS) for of_group in labels.values())


def test_every_video_decodes_to_the_frames_its_header_promises(decoded: dict[tuple[str, str], Decoded]) -> None:
    assert all(len(video.pictures) == video.declared_frames >= 16 for video in decoded.values())


def test_the_file_says_nothing_of_the_action(decoded: dict[tuple[str, str], Decoded]) -> None:
    by_group = defaultdict(set)
    for (_, group), video in decoded.items():
        by_group[group].add((video.pictures.shape, video.frame_rate, video.all_key_frames))
    assert all(len(of_group) == 1 for of_group in by_group.values())
    assert len(set.union(*by_group.values())) > 1


@pytest.mark.parametrize(("action", "reverse"), PAIRS)
def test_the_decoded_videos_of_a_pair_hold_the_same_pictures(
    action: str, reverse: str, decoded: dict[tuple[str, str], Decoded]
) -> None:
    for group in ("g01", "g02", "g03"):
        pictures, reversed_pictures = decoded[action, group].pictures, decoded[reverse, group].pictures
        assert np.array_equal(pictures, reversed_pictures[::-1])
        assert not np.array_equal(pictures, reversed_pictures)


@pytest.mark.parametrize("num_samples", [1, 2, 7, 8, 16, 24])
def test_uniform_samples_of_a_pair_are_the_same_pictures(
    num_samples: int, decoded: dict[tuple[str, str], Decoded]
) -> None:
    for video in decoded.values():
        num_frames = len(video.pictures)
        index = [(2 * i + 1) * num_frames // (2 * num_samples) for i in range(num_samples)]
        assert index == [num_frames - 1 - i for i in reversed(index)]


def test_a_joined_video_shows_each_frame_as_long_as_before(folder: Path, tmp_path: Path) -> None:
    clips = [folder / row["video"] for row in read_labels(folder / "labels.csv") if row["label"] == "wave_then_jump"]
    spans = join_videos(clips, tmp_path / "long.mp4")
    expected: list[float] = []
    for clip, (start, stop) in zip(clips, spans, strict=True):
        with av.open(str(clip)) as container:
            expected += [start + float(frame.time or 0) for frame in container.decode(video=0)]
            rate = float(container.streams.video[0].average_rate or 0)
        assert stop == pytest.approx(expected[-1] + 1 / rate)
    with av.open(str(tmp_path / "long.mp4")) as container:
        frames = list(container.decode(video=0))
        assert container.duration == pytest.approx(spans[-1][1] * 1e6)
    assert [frame.time for frame in frames] == pytest.approx(expected)
    assert {(frame.width, frame.height) for frame in frames} == {(320, 240)}


def test_the_same_seed_gives_the_same_files_and_another_seed_others(folder: Path, tmp_path: Path) -> None:
    again, other = tmp_path / "again", tmp_path / "other"
    write_demo_videos(again, num_groups=NUM_GROUPS, seed=5)
    write_demo_videos(other, num_groups=NUM_GROUPS, seed=6)
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert all((again / name).read_bytes() == (folder / name).read_bytes() for name in names)
    assert all((other / name).read_bytes() != (folder / name).read_bytes() for name in names if name.suffix == ".mp4")


def test_splits_share_the_groups_about_60_15_25(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidpipe.demo.videos._encode", lambda *_: None)
    monkeypatch.setattr("vidpipe.demo.videos.draw", lambda *_: None)
    rows = read_labels(write_demo_videos(tmp_path, num_groups=20))
    shares = {split: sum(row["split"] == split for row in rows) / len(rows) for split in ("train", "val", "test")}
    assert shares == pytest.approx({"train": 0.6, "val": 0.15, "test": 0.25})


def test_fewer_than_three_groups_cannot_fill_three_splits(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least 3"):
        write_demo_videos(tmp_path, num_groups=2)
