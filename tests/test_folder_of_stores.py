"""A folder of stores, one a stream, as the commands that take a store take it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.commands import LENET, run
from tests.stores import make_sequence, make_store
from vidpipe.features.store import FeatureStore
from vidpipe.features.streams import find_stores, open_store
from vidpipe.runs.run import Run

NAMES = ["a_lenet5", "b_resnet50"]


@pytest.fixture
def streams(made: Path, tmp_path: Path) -> Path:
    """`a_lenet5/`, the features of the run `made`, and `b_resnet50/` with the same ids."""
    folder = tmp_path / "streams"
    shutil.copytree(made / "features", folder / "a_lenet5")
    ids = FeatureStore.open(made / "features").ids
    make_store(folder / "b_resnet50", [make_sequence(video_id) for video_id in ids])
    return folder


def break_store(streams: Path) -> Path:
    """Add a store whose store.json is damaged."""
    shutil.copytree(streams / "b_resnet50", streams / "broken")
    (streams / "broken/store.json").write_text('{"format": ')
    return streams / "broken"


def damage_shard(store: Path) -> None:
    shard = FeatureStore.open(store).shard_paths[0]
    shard.write_bytes(shard.read_bytes()[:-1000])


def test_verify_goes_through_all_stores_and_names_each(streams: Path) -> None:
    result = run("store", "verify", streams)
    assert result.exit_code == 0, result.output
    assert result.stdout == "".join(f"{streams / name}: 16 videos in 1 shard, no damage\n" for name in NAMES)
    damage_shard(streams / "a_lenet5")
    result = run("store", "verify", streams, "--format", "json")
    assert result.exit_code == 3
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [one["path"] for one in found] == [str(streams / name) for name in NAMES]
    assert [len(one["damage"]) for one in found] == [1, 0]


def test_repair_and_compact_go_through_all_stores(streams: Path) -> None:
    damage_shard(streams / "b_resnet50")
    repaired = run("store", "repair", streams)
    assert repaired.exit_code == 0, repaired.output
    assert f"{streams / 'a_lenet5'}: nothing is damaged\n" in repaired.stdout
    assert f"{streams / 'b_resnet50'}: 1 dropped" in repaired.stdout
    compacted = run("store", "compact", streams)
    assert compacted.exit_code == 0
    assert [line.split(":")[0] for line in compacted.stdout.splitlines()] == [str(streams / name) for name in NAMES]
    assert [len(FeatureStore.open(streams / name)) for name in NAMES] == [16, 0]


def test_prune_drops_from_all_stores(tmp_path: Path, made: Path) -> None:
    shutil.copytree(made / "new", tmp_path / "videos")
    (tmp_path / "videos/bad.mp4").unlink()
    for name, num_frames in (("two", 2), ("three", 3)):
        store = tmp_path / "streams" / name
        extracted = run("extract", tmp_path / "videos", "-o", store, "--num-frames", num_frames, *LENET)
        assert extracted.exit_code == 0, extracted.output
    (tmp_path / "videos/a.mp4").unlink()
    result = run("store", "prune", tmp_path / "streams", tmp_path / "videos", "--yes")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("dropped: a.mp4") == 2
    for pruned in find_stores(tmp_path / "streams").stores:
        assert list(pruned) == ["b.mp4", "c.mp4"]


def test_info_shows_each_store(streams: Path) -> None:
    result = run("info", streams, "--format", "json")
    assert result.exit_code == 0, result.output
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [one["backbone"] for one in found] == ["lenet5", "resnet50"]
    assert [one["path"] for one in found] == [str(streams / name) for name in NAMES]
    blocks = run("info", streams).stdout.split("\n\n")
    assert [block.splitlines()[1].split()[-1] for block in blocks] == [str(streams / name) for name in NAMES]


@pytest.mark.parametrize("form", ["npy", "h5"])
def test_export_writes_a_folder_a_store(streams: Path, tmp_path: Path, form: str) -> None:
    result = run("store", "export", streams, "-o", tmp_path / "out", "--format", form)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == NAMES
    alone = run("store", "export", streams / "b_resnet50", "-o", tmp_path / "alone", "--format", form)
    assert alone.exit_code == 0
    if form == "npy":
        one, other = (np.load(tmp_path / f / "left/left0.mp4.npy") for f in ("out/b_resnet50", "alone"))
        assert np.array_equal(one, other)


def test_evaluate_and_predict_use_the_store_that_fits_the_run(made: Path, streams: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text(
        "video,label\n" + "".join(f"{name}/{name}{n}.mp4,{name}\n" for name in ("left", "right") for n in range(8))
    )
    trained = run("train", made / "features", "-o", tmp_path / "run", "--no-refit", "--device", "cpu")
    assert trained.exit_code == 0, trained.output
    outputs = []
    for store in (streams, made / "features"):
        evaluated = run("evaluate", tmp_path / "run", store, "--labels", labels, "--format", "json")
        predicted = run("predict", made / "run", made / "videos", "--store", store, "--format", "csv")
        assert (evaluated.exit_code, predicted.exit_code) == (0, 0), evaluated.output + predicted.output
        outputs.append((evaluated.stdout, predicted.stdout))
    assert outputs[0] == outputs[1]


def test_where_no_store_fits_the_run_each_is_named_with_what_it_holds(made: Path, streams: Path) -> None:
    shutil.rmtree(streams / "a_lenet5")
    for arguments in (("evaluate", made / "run", streams), ("predict", made / "run", made / "new", "--store", streams)):
        result = run(*arguments)
        assert result.exit_code == 1
        assert "none of its stores fits: b_resnet50 holds resnet50 features" in result.stderr
        assert "where lenet5 features" in result.stderr


def test_where_several_stores_fit_the_run_the_command_wants_one(made: Path, streams: Path) -> None:
    shutil.copytree(streams / "a_lenet5", streams / "again")
    result = run("evaluate", made / "run", streams)
    assert result.exit_code == 2
    for name in ("a_lenet5", "again"):
        assert f"`vidpipe evaluate {made / 'run'} {streams / name}`" in result.stderr
    assert f"`vidpipe evaluate {made / 'run'} {streams / 'b_resnet50'}`" not in result.stderr


def test_merge_wants_one_store_and_names_the_commands(streams: Path, tmp_path: Path) -> None:
    result = run("store", "merge", streams, "-o", tmp_path / "merged")
    assert result.exit_code == 2
    assert f"`vidpipe store merge {streams / 'a_lenet5'} … -o OUT`" in result.stderr
    assert not (tmp_path / "merged").exists()


def test_train_takes_every_store_of_a_folder(streams: Path, tmp_path: Path) -> None:
    shutil.rmtree(streams / "b_resnet50")
    shutil.copytree(streams / "a_lenet5", streams / "again")
    result = run("train", streams, "-o", tmp_path / "run", "--head", "statistics", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert list(Run.open(tmp_path / "run").keys) == ["a_lenet5", "again"]


def test_streams_of_other_files_are_refused(streams: Path, tmp_path: Path) -> None:
    result = run("train", streams, "-o", tmp_path / "run", "--head", "statistics", "--device", "cpu")
    assert result.exit_code == 1
    assert "extract both streams from the same videos" in result.stderr


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_extract_adds_to_the_store_of_the_same_features_whatever_its_name(
    made: Path, streams: Path, more: tuple[str, ...]
) -> None:
    result = run("extract", made / "new/a.mp4", "-o", streams, "--num-frames", 4, *LENET, *more)
    assert result.exit_code == 0, result.output
    assert names_of(streams) == NAMES
    assert ("a.mp4" in FeatureStore.open(streams / "a_lenet5")) == (not more)


def test_extract_makes_a_new_store_in_a_folder_of_stores(made: Path, streams: Path) -> None:
    result = run("extract", made / "new/a.mp4", "-o", streams, "--num-frames", 2, *LENET)
    assert result.exit_code == 0, result.output
    assert names_of(streams) == [*NAMES, "lenet5"]
    named = run("extract", made / "new/a.mp4", "-o", streams / "c_lenet5", "--num-frames", 2, *LENET)
    assert named.exit_code == 0, named.output
    assert names_of(streams) == [*NAMES, "c_lenet5", "lenet5"]


def names_of(streams: Path) -> list[str]:
    return [store.path.name for store in find_stores(streams).stores]


def test_the_only_store_in_a_folder_of_stores_needs_no_naming(streams: Path, tmp_path: Path) -> None:
    shutil.rmtree(streams / "b_resnet50")
    result = run("train", streams, "-o", tmp_path / "run", "--head", "statistics", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert list(Run.open(tmp_path / "run").keys) == ["a_lenet5"]


@pytest.mark.parametrize("command", [("info",), ("store", "verify"), ("store", "repair"), ("store", "compact")])
def test_a_store_that_cannot_be_opened_is_reported_and_the_others_go_on(
    streams: Path, command: tuple[str, ...]
) -> None:
    broken = break_store(streams)
    result = run(*command, streams)
    assert result.exit_code == 3
    assert f"failed: {broken}: store.json cannot be read" in result.stderr
    for name in NAMES:
        assert str(streams / name) in result.stdout


def test_a_store_that_lost_its_store_json_is_reported(streams: Path) -> None:
    (streams / "b_resnet50/store.json").unlink()
    result = run("store", "verify", streams)
    assert result.exit_code == 3
    assert f"failed: {streams / 'b_resnet50'}: no feature store: it has no store.json" in result.stderr


def test_a_store_that_cannot_be_opened_is_reported_where_one_is_needed(
    made: Path, streams: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    break_store(streams)
    shutil.rmtree(streams / "b_resnet50")
    refused = run("train", streams, "-o", tmp_path / "run")
    assert refused.exit_code == 1
    assert "store.json cannot be read" in refused.stderr
    assert f"To leave this stream out: `vidpipe train {streams / 'a_lenet5'} -o {tmp_path / 'run'}`" in refused.stderr
    predicted = run("predict", made / "run", made / "videos", "--store", streams)
    assert predicted.exit_code == 0, predicted.output
    assert "broken: store.json cannot be read" in caplog.text


def test_a_folder_without_a_store_that_can_be_opened_is_an_error(streams: Path) -> None:
    for name in NAMES:
        (streams / name / "store.json").write_text("{}")
    for command in (("info",), ("store", "verify"), ("train", "-o", "run")):
        result = run(*command, streams)
        assert result.exit_code == 1
        assert "none of its stores can be opened: " in result.stderr


def test_a_store_that_fails_half_way_is_reported_and_the_others_go_on(streams: Path) -> None:
    damage_shard(streams / "a_lenet5")
    result = run("store", "compact", streams)
    assert result.exit_code == 3
    assert f"failed: {streams / 'a_lenet5'}" in result.stderr
    assert f"{streams / 'b_resnet50'}: 1 shard" in result.stdout


def test_what_is_not_a_store_is_named_but_hidden_files_are_not(streams: Path, caplog: pytest.LogCaptureFixture) -> None:
    (streams / "notes.txt").touch()
    (streams / ".DS_Store").touch()
    (streams / "videos").mkdir()
    assert [store.path.name for store in find_stores(streams).stores] == NAMES
    assert f"{streams}: left out what is not a feature store: notes.txt, videos" in caplog.text


def test_a_store_is_opened_as_one_whatever_lies_in_it(streams: Path) -> None:
    shutil.copytree(streams / "b_resnet50", streams / "a_lenet5/inner")
    store = open_store(streams / "a_lenet5", usage="")
    assert (store.key.backbone, len(find_stores(store.path).stores)) == ("lenet5", 1)
