"""The JSON that commands print is what docs/output.md says, key by key."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from jsonschema import Draft202012Validator

from tests.annotated import write_annotated_figures
from tests.commands import LENET, run
from tests.media import moving_square, write_frames
from tests.schemas import SECTIONS, problems
from tests.stores import make_sequence, make_store
from vidpipe.cli import main
from vidpipe.features.store import FeatureStore


def objects_below(schema: Any) -> Iterator[dict[str, Any]]:
    """Every schema of an object with named keys, at any depth."""
    if isinstance(schema, dict):
        if "properties" in schema:
            yield schema
        for value in schema.values():
            yield from objects_below(value)


@pytest.mark.parametrize("title", SECTIONS)
def test_a_schema_is_valid_names_every_key_and_fits_its_example(title: str) -> None:
    schema, example = SECTIONS[title]
    Draft202012Validator.check_schema(schema)
    assert len(example.splitlines()) == 1
    assert problems(title, json.loads(example)) == []
    for one in objects_below(schema):
        assert one["additionalProperties"] is False
    assert problems(title, {**json.loads(example), "new_key": 1}) != []


def commands_with_json(command: click.Command, name: str = "") -> Iterator[str]:
    context = click.Context(command)
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            assert found is not None
            yield from commands_with_json(found, f"{name} {below}".strip())
    for parameter in command.params:
        if "--format" in parameter.opts and "json" in getattr(parameter.type, "choices", ()):
            yield name


def test_every_command_that_prints_json_is_described() -> None:
    described = {re.match(r"[a-z ]+[a-z]", title)[0] for title in SECTIONS}  # type: ignore[index]
    assert set(commands_with_json(main)) == described


def check(title: str, *arguments: object, exit_code: int = 0) -> list[dict[str, Any]]:
    """The objects that a command prints; each fits its section."""
    result = run(*arguments, "--format", "json")
    assert result.exit_code == exit_code, result.output
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert found
    for one in found:
        assert problems(title, one) == []
    return found


def test_predictions_are_as_described(made: Path) -> None:
    chosen = ("predict", made / "run", made / "new", "--device", "cpu", "--workers", 1, "--min-confidence", 0.9)
    assert {one["status"] for one in check("predict RUN INPUT…", *chosen, exit_code=3)} >= {"failed"}
    stored = ("predict", made / "run", made / "videos", "--store", made / "features", "--min-confidence", 1)
    assert {one["status"] for one in check("predict RUN INPUT…", *stored)} == {"unknown"}


def test_predicted_timelines_are_as_described(made: Path) -> None:
    chosen = ("predict", made / "run", made / "new", "--timeline", "--device", "cpu", "--workers", 1)
    for more, has_curves in (((), False), (("--curves",), True)):
        found = check("predict RUN INPUT… --timeline", *chosen, *more, exit_code=3)
        assert {one["status"] for one in found} == {"ok", "failed"}
        assert any(one["segments"] for one in found)
        assert any(one["curve"] is not None for one in found) == has_curves


def test_scores_of_detectors_are_as_described(tmp_path: Path) -> None:
    write_annotated_figures(tmp_path)
    truth = json.loads((tmp_path / "annotations.json").read_text())
    points: dict[str, Any] = {"keypoints": []}
    for name, more in (("boxes", {"segmentation": [], **points}), ("masks", points), ("all", {})):
        content = {**truth, "annotations": [one | more | {"score": 0.9} for one in truth["annotations"]]}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
        chosen = ("regions", "score", tmp_path / "annotations.json", tmp_path / f"{name}.json")
        (found,) = check("regions score TRUTH.json FOUND.json", *chosen)
        assert [found[key] is None for key in ("masks", "key_points", "overlap")] == [
            name == "boxes",
            name != "all",
            name == "boxes",
        ]


def test_explanations_are_as_described(made: Path, tmp_path: Path) -> None:
    chosen = ("explain", "run", made / "run", made / "new/a.mp4", "-o", tmp_path / "why", "--no-video", "--workers", 1)
    (found,) = check("explain run RUN INPUT…", *chosen)
    assert len(found["streams"][0]["rows"]) == 4


def test_segments_of_a_recording_are_as_described(made: Path, tmp_path: Path) -> None:
    path = write_frames(tmp_path / "a.ts", moving_square(3, to_the_right=True) * 4)
    chosen = ("predict", made / "run", path, "--timeline", "--follow", "--idle", 0.2, "--device", "cpu")
    for one in check("predict RUN INPUT --timeline --follow", *chosen):
        assert one["start_seconds"] < one["stop_seconds"]


def test_an_evaluation_is_as_described(half_tested: Path) -> None:
    folder = half_tested.parent
    (found,) = check("evaluate RUN STORE", "evaluate", half_tested, folder / "store", "--labels", folder / "labels.csv")
    assert found["per_class"][2]["f1"] is None
    assert found["num_excluded"] == 0
    baseline = ("evaluate", folder / "mean", folder / "store", "--labels", folder / "labels.csv")
    assert run("train", folder / "store", "-o", folder / "mean", "--head", "mean", "--no-refit").exit_code == 0
    (found,) = check("evaluate RUN STORE", *baseline)
    assert (found["baseline"], found["num_excluded"] > 0) == ({}, True)


def test_clusters_are_as_described(made: Path, tmp_path: Path) -> None:
    (tmp_path / "known.csv").write_text("video,label\nleft/left0.mp4,left\n")
    chosen = ("search", "clusters", made / "features", "-o", tmp_path / "clusters", "--labels", tmp_path / "known.csv")
    found = check("search clusters STORE…", *chosen)
    assert sum(one["num_videos"] for one in found) == 16


def test_what_info_tells_is_as_described(made: Path, half_tested: Path, tmp_path: Path) -> None:
    check("info STORE", "info", made / "features")
    check("info STORE", "info", half_tested.parent / "store")
    check("info VIDEO", "info", made / "new/a.mp4")
    for number, (more, top1) in enumerate(
        (
            ((), ["test_top1"]),
            (("--folds", 2, "--head", "auto", "--budget", 0), ["folds_top1"]),
            (("--test-fraction", 0, "--val-fraction", 0.2), ["val_top1"]),
            (("--test-fraction", 0, "--val-fraction", 0), []),
        )
    ):
        path = tmp_path / str(number)
        quick = ("--epochs", 1, "--hidden-size", 4, "--device", "cpu")
        trained = run("train", made / "features", "-o", path, *more, *quick)
        assert trained.exit_code == 0, trained.output
        assert [key for one in check("info RUN", "info", path) for key in one if key.endswith("_top1")] == top1
    half = ("--sampling", "fps", "--fps", 4, "--dtype", "float16", *LENET)
    assert run("extract", made / "new/a.mp4", "-o", tmp_path / "half", *half).exit_code == 0
    check("info STORE", "info", tmp_path / "half")
    make_store(tmp_path / "empty", [])
    check("info STORE", "info", tmp_path / "empty")


def test_backbones_are_as_described() -> None:
    assert len(check("backbones", "backbones")) > 50
    check("backbones", "backbones", "timm/test_vit.r160_in1k", "mvit_v2_s")
    assert len(check("backbones --kind detector", "backbones", "--kind", "detector")) >= 12


def test_similar_videos_and_duplicates_are_as_described(made: Path, tmp_path: Path) -> None:
    chosen = ("search", "similar", made / "features", "left/left0.mp4", made / "new/bad.mp4", "--device", "cpu")
    good, bad = check("search similar STORE VIDEO…", *chosen, exit_code=3)
    assert (len(good["videos"]), bad["status"]) == (10, "failed")
    sequences = [make_sequence(name, length=1) for name in ("a.mp4", "b.mp4", "c.mp4")]
    sequences[1].features[:] = sequences[0].features
    make_store(tmp_path / "store", sequences)
    (found,) = check("search duplicates STORE", "search", "duplicates", tmp_path / "store")
    assert len(found["pairs"]) == 1


def test_what_verify_finds_is_as_described(made: Path, tmp_path: Path) -> None:
    check("store verify STORE", "store", "verify", made / "features")
    assert run("extract", made / "videos/left", "-o", tmp_path / "s", "--num-frames", 2, *LENET).exit_code == 0
    (shard,) = FeatureStore.open(tmp_path / "s").shard_paths
    shard.write_bytes(shard.read_bytes()[:-1000])
    (found,) = check("store verify STORE", "store", "verify", tmp_path / "s", exit_code=3)
    assert found["damage"]


def test_scores_of_timelines_are_as_described(tmp_path: Path) -> None:
    header = "video,start_seconds,stop_seconds,label"
    (tmp_path / "truth.csv").write_text(f"{header}\na.mp4,0,4,x\nb.mp4,0,1,y\n")
    (tmp_path / "scored.csv").write_text(f"{header},probability\na.mp4,0,3,x,0.5\nc.mp4,0,1,x,0.5\n")
    (tmp_path / "plain.csv").write_text(f"{header}\na.mp4,0,3,x\n")
    for predicted, has_map in (("scored.csv", True), ("plain.csv", False)):
        chosen = ("timeline", "score", tmp_path / "truth.csv", tmp_path / predicted)
        (found,) = check("timeline score TRUTH PREDICTED", *chosen)
        assert (found["map"] is not None) == has_map
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames/a.txt").write_text("x\ny\n")
    (found,) = check("timeline score TRUTH PREDICTED", "timeline", "score", tmp_path / "frames", tmp_path / "frames")
    assert found["fps"] is None
