"""The stream `pose`: key points of people as features, and what heads see of them, on skeletons of known motion."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.commands import run
from tests.media import write_frames
from vidpipe.backbones.stream import resolve_streams
from vidpipe.config import ExtractConfig, TrainConfig
from vidpipe.datasets.pose import POSE_DIM, describe_people
from vidpipe.datasets.sequences import input_rows, pad
from vidpipe.errors import RunError, UsageError
from vidpipe.features.store import FeatureStore
from vidpipe.heads.heads import build_head
from vidpipe.records import POSE_NUMBERS, POSE_PEOPLE, POSE_POINTS
from vidpipe.regions.detections import PERSON, Detections
from vidpipe.regions.pose import PoseFinder, pose_row
from vidpipe.video import worker

STANDING = np.array(
    [
        *((0.05, -0.42), (0.05, -0.44), (0.04, -0.44), (0.0, -0.43), (-0.01, -0.43)),  # nose, eyes, ears: looks right
        *((0.04, -0.3), (-0.04, -0.3), (0.06, -0.16), (-0.06, -0.16), (0.08, -0.02), (-0.08, -0.02)),  # to the wrists
        *((0.03, 0.02), (-0.03, 0.02), (0.04, 0.25), (-0.03, 0.25), (0.05, 0.48), (-0.04, 0.48)),  # to the ankles
    ]
)
"""(17, 2) a person of height 1."""
MIRRORED = [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]
"""A mirror image shows each left limb where the right one was."""
WRIST = 9
FRAMES = 12


def person(x: float, *, y: float = 0.5, height: float = 0.4, looks: int = 1, reach: float = 0.0) -> NDArray[np.float64]:
    """(56,) a person; `reach` moves the left wrist to the front."""
    points = STANDING.copy()
    points[WRIST, 0] += reach
    points = points * [looks * height, height] + [x, y]
    scored = np.concatenate([points, np.full((POSE_POINTS, 1), 0.8)], axis=1)
    return np.concatenate([scored.ravel(), points.min(axis=0), points.max(axis=0), [0.7]])


def rows_of(frames: Sequence[Sequence[NDArray[np.float64]]]) -> NDArray[np.float32]:
    """(T, 336) of the people of each frame."""
    rows = np.zeros((len(frames), POSE_PEOPLE, POSE_NUMBERS), np.float32)
    for row, people in zip(rows, frames, strict=True):
        row[: len(people)] = np.array(people).reshape(-1, POSE_NUMBERS)
    return rows.reshape(len(frames), -1)


def push(frame: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One on the left steps up to one on the right and stretches an arm."""
    return person(0.3 + 0.01 * frame, reach=0.02 * frame), person(0.6 + 0.002 * frame, looks=-1)


PUSH = rows_of([push(frame) for frame in range(FRAMES)])


def moved(rows: NDArray[np.float32], *, scale: float = 1.0, offset: float = 0.0) -> NDArray[np.float32]:
    """The same people elsewhere, in another size."""
    people = rows.reshape(-1, POSE_PEOPLE, POSE_NUMBERS).copy()
    is_length = np.ones(POSE_NUMBERS, np.bool_)
    is_length[[*range(2, 3 * POSE_POINTS, 3), POSE_NUMBERS - 1]] = False
    is_found = people[..., -1:] > 0
    people = np.where(is_length & is_found, scale * people + offset, people)
    return people.reshape(len(rows), -1)


def mirrored(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    people = rows.reshape(-1, POSE_PEOPLE, POSE_NUMBERS).copy()
    points = people[..., : 3 * POSE_POINTS].reshape(*people.shape[:2], POSE_POINTS, 3)[:, :, MIRRORED]
    points[..., 0] = 1 - points[..., 0]
    people[..., : 3 * POSE_POINTS] = points.reshape(*people.shape[:2], -1)
    people[..., [-5, -3]] = 1 - people[..., [-3, -5]]
    return people.reshape(len(rows), -1)


# What heads see


def test_a_description_has_a_row_a_frame_and_is_finite() -> None:
    described = describe_people(PUSH)
    assert described.shape == (FRAMES, POSE_DIM)
    assert described.dtype == np.float32
    assert np.isfinite(described).all()


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.15), (0.5, 0.0), (0.6, 0.3)])
def test_place_and_size_of_the_people_do_not_matter(scale: float, offset: float) -> None:
    assert np.abs(describe_people(moved(PUSH, scale=scale, offset=offset)) - describe_people(PUSH)).max() < 1e-4


def test_a_clip_and_its_mirror_image_have_the_same_description() -> None:
    assert np.abs(describe_people(mirrored(PUSH)) - describe_people(PUSH)).max() < 1e-5


def test_the_order_in_which_a_detector_lists_people_does_not_matter() -> None:
    shuffled = rows_of([push(frame)[:: (-1) ** frame] for frame in range(FRAMES)])
    assert np.abs(describe_people(shuffled) - describe_people(PUSH)).max() < 1e-5


def test_who_pushes_and_who_steps_back_differ_from_two_who_stand() -> None:
    standing = rows_of([push(0)] * FRAMES)
    still, acting = describe_people(standing), describe_people(PUSH)
    assert np.abs(np.diff(still, axis=0)).max() < 1e-6
    assert np.abs(acting[-1] - still[-1]).max() > 0.2


def test_people_who_cross_keep_their_identity() -> None:
    """The tall one walks right, the short one left: a change of identity would show as a jump of the reaching arm."""
    short = {"y": 0.54, "height": 0.32}
    frames = [(person(0.3 + 0.03 * at, reach=0.2), person(0.65 - 0.03 * at, looks=-1, **short)) for at in range(11)]
    described = describe_people(rows_of(frames))
    bodies = described[:, : 2 * (POSE_DIM // 2 - 2)]
    steps = np.abs(np.diff(bodies[:, :26], axis=0)).max()  # the mean of the two: the same, whoever is who
    between = described[:, -4]  # signed distance along x: falls by the same amount in each frame
    assert steps < 0.05
    assert np.ptp(np.diff(between)) < 1e-4
    assert between[0] > 0 > between[-1]


def test_the_two_largest_people_are_described_and_not_a_passer_by() -> None:
    passer_by = [(*push(frame), person(0.05 * frame, y=0.2, height=0.1)) for frame in range(FRAMES)]
    assert np.array_equal(describe_people(rows_of(passer_by)), describe_people(PUSH))


def test_a_person_who_is_lost_for_some_frames_stays_where_they_were_expected() -> None:
    frames = [push(frame) if frame not in (4, 5, 6) else push(frame)[:1] for frame in range(FRAMES)]
    described, truth = describe_people(rows_of(frames)), describe_people(PUSH)
    seen = np.zeros(POSE_DIM, np.bool_)
    seen[[26, 27, 32 + 26, 32 + 27]] = True
    assert np.abs(described - truth)[:, ~seen].max() < 1e-4
    assert (described[[4, 5, 6], 26] == 0.5).all()
    assert (described[[3, 7], 26] == 1).all()


def test_a_key_point_that_is_not_seen_is_interpolated_and_not_zero() -> None:
    rows = PUSH.reshape(FRAMES, POSE_PEOPLE, POSE_NUMBERS).copy()
    rows[5:7, 0, 3 * WRIST : 3 * WRIST + 3] = 0
    described, truth = describe_people(rows.reshape(FRAMES, -1)), describe_people(PUSH)
    assert np.abs(described[5:7, :26] - truth[5:7, :26]).max() < 1e-4
    assert described[5, 27] < truth[5, 27]


@pytest.mark.parametrize("people", [(), (person(0.4),)], ids=["nobody", "one person"])
def test_fewer_than_two_people_give_a_description_without_relations(people: tuple[NDArray[np.float64], ...]) -> None:
    described = describe_people(rows_of([people] * 3))
    assert np.isfinite(described).all()
    assert (described[:, -4:] == 0).all()
    assert described[:, 26].tolist() == [0.5 * len(people)] * 3
    assert describe_people(rows_of([people])).shape == (1, POSE_DIM)


@pytest.mark.parametrize("head", ["statistics", "lstm"])
def test_padding_does_not_change_a_prediction(head: str) -> None:
    torch.manual_seed(0)
    built = build_head(head, POSE_DIM, 3, TrainConfig(hidden_size=8), kind="pose").eval()
    long, short = (torch.from_numpy(describe_people(PUSH[:length])) for length in (FRAMES, 5))
    with torch.inference_mode():
        together = built(*pad([long, short]))[1]
        alone = built(*pad([short]))[0]
    assert torch.allclose(together, alone, atol=1e-5)


# Rows of the store


def found_in(*people: NDArray[np.float64], height: int = 90, width: int = 120) -> Detections:
    """What a detector says about a frame of this size."""
    rows = np.array(people, np.float32).reshape(-1, POSE_NUMBERS)
    points = rows[:, : 3 * POSE_POINTS].reshape(-1, POSE_POINTS, 3).copy()
    points[..., :2] *= max(height, width)
    boxes, scores = rows[:, -5:-1] * max(height, width), rows[:, -1]
    return Detections(height, width, boxes, scores, np.full(len(rows), PERSON), key_points=points)


def test_a_row_has_the_surest_people_first_in_shares_of_the_longer_side() -> None:
    people = [person(0.1 * number) for number in range(8)]
    for number, one in enumerate(people):
        one[-1] = 0.1 * (number + 1)
    row = pose_row(found_in(*people)).reshape(POSE_PEOPLE, POSE_NUMBERS)
    assert np.abs(row - np.array(people[:1:-1])).max() < 1e-6


def test_absent_people_are_zeros_and_logits_become_scores() -> None:
    one = person(0.4)
    one[2 : 3 * POSE_POINTS : 3] = 0.0
    row = pose_row(found_in(one), has_logits=True).reshape(POSE_PEOPLE, POSE_NUMBERS)
    assert (row[1:] == 0).all()
    assert (row[0, 2 : 3 * POSE_POINTS : 3] == 0.5).all()


def test_looks_with_one_detector_search_each_frame_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker._Worker, "step", lambda steps: None)
    searched: list[int] = []

    def detect(frames: NDArray[np.uint8]) -> list[int]:
        searched.append(int(frames[0, 0, 0, 0]))
        return [int(frames[0, 0, 0, 0])]

    class Doubled:
        def __init__(self, factor: int) -> None:
            self.detect, self._factor = detect, factor

        def read(self, found: int, frame: NDArray[np.uint8]) -> NDArray[np.int64]:
            return np.array([self._factor * found])

    frames = np.arange(4, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)
    every, some = np.ones(4, np.bool_), np.array([True, False, True, False])
    first, second = Doubled(2), Doubled(3)
    seen = worker._look_at(frames, [(first, every), (second, some)])
    assert searched == [0, 1, 2, 3]
    assert seen[first].ravel().tolist() == [0, 2, 4, 6]
    assert seen[second].ravel().tolist() == [0, 0, 6, 0]


# Extraction, training and prediction


@pytest.fixture(scope="module")
def bright_people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of the form of MoveNet: two people, who move to the right where the picture is brighter."""
    path = tmp_path_factory.mktemp("detector") / "bright.onnx"
    people = rows_of([push(0)]).reshape(POSE_PEOPLE, POSE_NUMBERS)
    points = people[:, : 3 * POSE_POINTS].reshape(POSE_PEOPLE, POSE_POINTS, 3)[..., [1, 0, 2]]
    output = np.concatenate([points.reshape(POSE_PEOPLE, -1), people[:, [-4, -5, -2, -3, -1]]], axis=1)[None]
    is_x = np.zeros_like(output)
    is_x[:, 0, 1 : 3 * POSE_POINTS : 3] = 1 / 255 / 4
    nodes = [
        helper.make_node("Cast", ["input"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["light"], keepdims=0),
        helper.make_node("Mul", ["is_x", "light"], ["step"]),
        helper.make_node("Add", ["step", "people"], ["output_0"]),
    ]
    graph = helper.make_graph(
        nodes,
        "bright",
        [helper.make_tensor_value_info("input", TensorProto.INT32, [1, "h", "w", 3])],
        [helper.make_tensor_value_info("output_0", TensorProto.FLOAT, [1, POSE_PEOPLE, POSE_NUMBERS])],
        [
            numpy_helper.from_array(value.astype(np.float32), name)
            for name, value in (("is_x", is_x), ("people", output))
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos that become brighter, and others that become darker."""
    folder = tmp_path_factory.mktemp("videos")
    for number in range(6):
        label = ("brighter", "darker")[number % 2]
        light = np.linspace(20, 220, 8)[:: (-1) ** number]
        write_frames(folder / label / f"{number}.mp4", [np.full((90, 120, 3), one, np.uint8) for one in light])
    return folder


def pose_options(weights: Path) -> tuple[str | Path, ...]:
    return "--detector", "movenet", "--detector-weights", weights


def test_a_run_with_key_points_is_trained_and_applied_to_clips_and_timelines(
    videos: Path, bright_people: Path, tmp_path: Path
) -> None:
    stores, trained = tmp_path / "s", tmp_path / "run"
    chosen = ("--backbone", "lenet5,pose", "--num-frames", 8, *pose_options(bright_people))
    result = run("extract", videos, "-o", stores, *chosen)
    assert result.exit_code == 0, result.output
    store = FeatureStore.open(stores / "pose")
    assert dict(store.key.parameters or {}) == {"detector": "movenet", "num_people": POSE_PEOPLE, "longer_side": 256}
    assert (store.key.regions, store.key.pooling) == (None, "none")
    wrist = store["brighter/0.mp4"].features[:, 3 * WRIST]
    assert np.abs(np.diff(wrist) - 200 / 7 / 255 / 4).max() < 2e-3  # as the light of the frames
    dry = run("extract", videos, "-o", stores, *chosen, "--dry-run")
    assert (dry.exit_code, "would extract 0 videos" in dry.stdout) == (0, True)

    result = run("train", stores, "-o", trained, "--head", "statistics", "--test-fraction", 0, "--device", "cpu")
    assert result.exit_code == 0, result.output
    asked = ("predict", trained, videos, "--device", "cpu", "--workers", 1, "--format", "json")
    fresh = run(*asked, "--detector-weights", bright_people)
    assert fresh.exit_code == 0, fresh.output
    answers = [json.loads(line) for line in fresh.stdout.splitlines()]
    assert [one["label"] for one in answers] == ["brighter"] * 3 + ["darker"] * 3
    assert fresh.stdout == run(*asked, "--store", stores).stdout
    timeline = run(*asked, "--detector-weights", bright_people, "--timeline", "--window", 0.32)
    assert timeline.exit_code == 0, timeline.output
    assert "segments" in timeline.stdout
    for refused in (
        run("explain", "run", trained, videos / "darker/1.mp4", "-o", tmp_path / "why"),
        run("predict", trained, videos / "darker/1.mp4", "--timeline", "--window", 0.32, "--follow"),
    ):
        assert (refused.exit_code, "trained on key points of people" in refused.stderr) == (2, True)
    without = run(*asked)
    assert (without.exit_code, "--detector-weights FILE" in without.stderr) == (2, True)
    assert "pose" in run("info", trained).stdout


def test_heads_are_given_what_people_do_and_features_of_others_as_they_are(bright_people: Path) -> None:
    finder = PoseFinder.of(ExtractConfig(backbone="pose", detector="movenet", detector_weights=str(bright_people)))
    assert finder is not None
    streams = resolve_streams(ExtractConfig(backbone="lenet5,pose", detector="movenet"), pose=finder.described)
    rows = torch.from_numpy(PUSH)
    assert torch.equal(input_rows(rows, streams["pose"].key), torch.from_numpy(describe_people(PUSH)))
    assert input_rows(rows, streams["lenet5"].key) is rows


def test_settings_and_weights_that_do_not_fit_are_refused(bright_people: Path, videos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="centernet finds boxes; detectors with key points: keypointrcnn, movenet"):
        PoseFinder.of(ExtractConfig(backbone="pose", detector="centernet"))
    assert PoseFinder.of(ExtractConfig(backbone="lenet5")) is None
    with pytest.raises(UsageError, match="--pose-size goes with --backbone pose"):
        ExtractConfig(backbone="lenet5", pose_size=192)
    finder = PoseFinder.of(ExtractConfig(backbone="pose", detector="movenet", detector_weights=str(bright_people)))
    assert finder is not None
    with pytest.raises(RunError, match="other weights of movenet"):
        PoseFinder.of_key(finder.described.parameters, "0" * 64, weights=str(bright_people), device="cpu")
    grid = run("extract", videos, "-o", tmp_path / "s", "--backbone", "pose", *pose_options(bright_people), "--grid", 2)
    assert (grid.exit_code, "pose is what a detector finds" in grid.stderr) == (2, True)
    download = run("backbones", "--download", "pose")
    assert (download.exit_code, "pose has no weights of its own" in download.stderr) == (2, True)
    assert run("backbones", "--kind", "pose").stdout.splitlines()[-1].startswith("pose ")
