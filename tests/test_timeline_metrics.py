"""The metrics of timelines equal the figures of the public evaluators, and small cases worked out by hand."""

import json
import random
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from vidpipe.records import Segment, Timeline
from vidpipe.timeline.detection import ACTIVITYNET, THUMOS14, score_detection
from vidpipe.timeline.exchange import read_timelines
from vidpipe.timeline.formats.frame_texts import read_labels_of_frames
from vidpipe.timeline.segmentation import Hits, score_segmentation

DATA = Path(__file__).parents[2] / "shared" / "data" / "timeline"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="../shared/data/timeline is not there")
PROTOCOLS = {"0.3:0.1:0.7": THUMOS14, "0.5:0.05:0.95": ACTIVITYNET}


def load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def close(value: Any) -> Any:
    return pytest.approx(value, abs=1e-6, rel=0)


# Detection


@needs_data
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("rule", ["with_duplicates_rule", "without_duplicates_rule"])
@pytest.mark.parametrize("name", ["detection", "detection_tiny"])
def test_detection_equals_opentads_figures(name: str, rule: str, protocol: str) -> None:
    expected = load(DATA / name / "expected.json")[rule]
    truth = read_timelines(DATA / name / "ground_truth.json")
    scores = score_detection(
        [one for one in truth if one.split == "test"],
        read_timelines(DATA / name / "predictions.json"),
        thresholds=PROTOCOLS[protocol],
        drop_duplicates=rule == "with_duplicates_rule",
    )
    assert sum(scores.num_truth.values()) == expected["num_ground_truth"]
    assert scores.num_truth == expected["num_ground_truth_per_class"]
    assert scores.num_predicted == expected["num_predictions_per_class"]
    assert scores.num_unknown == expected["num_predictions_of_unknown_class"]
    assert sum(scores.num_predicted.values()) + scores.num_unknown == expected["num_predictions"]
    figures = expected[protocol]
    assert scores.average_map == close(figures["average_mAP"])
    assert scores.map == close(list(figures["mAP"].values()))
    assert scores.average_precision == {
        label: close(list(by_threshold.values())) for label, by_threshold in figures["AP_per_class"].items()
    }


def at(start: float, stop: float, label: str = "a", probability: float | None = None) -> Segment:
    return Segment(start, stop, label, probability)


def test_average_precision_by_hand() -> None:
    truth = [Timeline("v", (at(0, 10), at(20, 30), at(40, 50)))]
    found = (
        at(0, 10, probability=0.9),
        at(60, 70, probability=0.8),
        at(20, 30, probability=0.7),
        at(0, 9, probability=0.6),
    )
    scores = score_detection(truth, [Timeline("v", found)], thresholds=[0.5])
    # hit, miss, hit, miss (taken): recall 1/3 at precision 1, 2/3 at 2/3; the third is never found
    assert scores.average_precision == {"a": close((1 / 3 + 1 / 3 * 2 / 3,))}


def test_an_overlap_equal_to_the_threshold_is_a_hit_and_the_next_best_may_be_taken() -> None:
    truth = [Timeline("v", (at(0, 10), at(5, 15)))]
    found = (at(0, 10, probability=0.9), at(0, 10, probability=0.8))
    # the second prediction overlaps the second segment by 5 of 15
    assert score_detection(truth, [Timeline("v", found)], thresholds=[1 / 3, 0.34]).map == close((1.0, 0.5))


def test_predictions_in_other_videos_and_of_other_classes() -> None:
    truth = [Timeline("v", (at(0, 10), at(0, 10, "b")))]
    elsewhere = Timeline("w", (at(0, 10, probability=0.9), at(0, 1, "unknown", 0.9)))
    scores = score_detection(truth, [elsewhere, Timeline("v", (at(0, 10, probability=0.5),))], thresholds=[0.5])
    assert scores.average_precision == {"a": close((0.5,)), "b": close((0.0,))}
    assert (scores.map, scores.num_unknown) == (close((0.25,)), 1)


def test_empty_and_duplicate_truth_is_dropped_unless_it_is_kept() -> None:
    truth = [Timeline("v", (at(0, 10), at(0.0005, 10.001), at(0.002, 10), at(3, 3), at(0, 10, "b")))]
    assert score_detection(truth, [], thresholds=[0.5]).num_truth == {"a": 2, "b": 1}
    assert score_detection(truth, [], thresholds=[0.5], drop_duplicates=False).num_truth == {"a": 4, "b": 1}


def test_without_truth_there_is_nothing_to_find() -> None:
    scores = score_detection([Timeline("v")], [Timeline("v", (at(0, 1, probability=0.5),))], thresholds=THUMOS14)
    assert (scores.average_map, scores.num_unknown) == (0.0, 1)


# Segmentation


def labels_of(name: str) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """True and predicted labels of a set."""
    if name == "segmentation_tiny":
        return read_labels_of_frames(DATA / name / "ground_truth"), read_labels_of_frames(DATA / name / "prediction")
    document = load(DATA / name / "videos.json")
    classes, videos = document["classes"], document["videos"]
    truth = {video: [classes[index] for index in one["ground_truth"]] for video, one in videos.items()}
    return truth, {video: [classes[index] for index in one["prediction"]] for video, one in videos.items()}


@needs_data
@pytest.mark.parametrize("end", ["end_as_in_code", "end_exclusive"])
@pytest.mark.parametrize("background", [["background"], []])
@pytest.mark.parametrize("name", ["segmentation", "segmentation_tiny"])
def test_segmentation_equals_asformers_figures(name: str, background: list[str], end: str) -> None:
    everything = load(DATA / name / "expected.json")
    expected = everything[f"bg_class={json.dumps(background)}"][end]
    scores = score_segmentation(*labels_of(name), background=background, end_exclusive=end == "end_exclusive")
    assert scores.edit * 100 == close(expected["edit"])
    assert {str(overlap): f1 * 100 for overlap, f1 in scores.f1.items()} == close(expected["F1"])
    assert {str(k): [h.num_hits, h.num_false, h.num_missed] for k, h in scores.hits.items()} == expected["tp_fp_fn"]
    assert scores.videos.keys() == expected["per_video"].keys()
    for video_id, figures in expected["per_video"].items():
        video = scores.videos[video_id]
        assert video.edit * 100 == close(figures.pop("edit"))
        counts = {f"tp_fp_fn@{k}": [h.num_hits, h.num_false, h.num_missed] for k, h in video.hits.items()}
        assert counts == figures
    accuracy = everything["frame_accuracy"]
    assert scores.frame_accuracy * 100 == close(accuracy["all_frames"])
    if background:
        assert scores.foreground_accuracy * 100 == close(accuracy["ground_truth_background_frames_left_out"])


def score(truth: str, predicted: str, **options: Any) -> Any:
    return score_segmentation({"v": list(truth)}, {"v": list(predicted)}, background=["-"], **options)


def test_segmental_figures_by_hand() -> None:
    scores = score("--aaaabbbb-", "-aaaabbb-b-")
    # a: 3 of 5 frames shared; b: 2 of 5 with the first, 1 of 4 with the second, and the first one takes it
    assert scores.hits == {10: Hits(2, 1, 0), 25: Hits(2, 1, 0), 50: Hits(1, 2, 1)}
    assert scores.f1[50] == close(2 / 5)
    assert scores.edit == close(2 / 3)
    assert scores.frame_accuracy == close(8 / 11)
    assert scores.foreground_accuracy == close(6 / 8)


def test_the_public_evaluator_shortens_a_segment_at_the_end() -> None:
    assert score("--a", "--a").f1[10] == 0.0
    assert score("--a", "--a", end_exclusive=True).f1[10] == 1.0
    # 2 of 4 frames shared; 1 of 3 where the last frame is lost
    assert score("-aaaa", "---aa").f1[50] == 0.0
    assert score("-aaaa", "---aa", end_exclusive=True).f1[50] == 1.0


def test_a_video_that_is_all_background_is_evaluated() -> None:
    assert score("---", "---").edit == 1.0
    assert score("---", "-a-").hits[10] == Hits(0, 1, 0)
    assert score("---", "-a-").edit == 0.0
    assert score("", "").hits[10] == Hits(0, 0, 0)


def edit_distance(one: Sequence[str], other: Sequence[str]) -> int:
    """By its definition."""
    if not one or not other:
        return len(one) + len(other)
    change = edit_distance(one[1:], other[1:]) + (one[0] != other[0])
    return min(change, edit_distance(one[1:], other) + 1, edit_distance(one, other[1:]) + 1)


def test_the_edit_score_equals_its_definition() -> None:
    source = random.Random(0)
    for _ in range(60):
        truth, predicted = ("".join(source.choices("abc", k=7)) for _ in range(2))
        runs = [[label for label, _ in groupby(labels)] for labels in (truth, predicted)]
        assert score(truth, predicted).edit == close(1 - edit_distance(*runs) / max(map(len, runs)))


def test_lengths_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="3 true labels of frames and 2 predicted"):
        score("aab", "aa")
