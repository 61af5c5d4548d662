"""A stream resolves once what changes a feature, from the settings of an extraction or from the key of a run."""

from collections import UserDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.commands import run
from vidpipe.backbones import table
from vidpipe.backbones.stream import WEIGHTS_NOT_READ, Stream
from vidpipe.config import ExtractConfig, Sampling
from vidpipe.errors import RunError, UsageError
from vidpipe.features.store import FeatureStore
from vidpipe.runs.run import Run
from vidpipe.stages.extract import extract
from vidpipe.stages.predict import predict
from vidpipe.video.files import find_videos

LENET = ExtractConfig(backbone="lenet5", device="cpu", workers=1, num_frames=4)


class CountedTable(UserDict[str, Any]):
    """A table of backbones that counts how often a backbone is looked up."""

    num_found = 0

    def __getitem__(self, name: str) -> Any:
        CountedTable.num_found += 1
        return super().__getitem__(name)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> type[CountedTable]:
    monkeypatch.setattr(table, "BACKBONES", CountedTable(table.BACKBONES))
    CountedTable.num_found = 0
    return CountedTable


def test_an_extraction_and_a_prediction_find_the_backbone_once(
    made: Path, tmp_path: Path, counted: type[CountedTable]
) -> None:
    videos = find_videos([made / "new/a.mp4"])
    assert extract(videos, tmp_path / "s", config=LENET).num_stored == 1
    assert counted.num_found == 1
    assert len(list(predict(Run.open(made / "run"), videos, config=LENET))) == 1
    assert counted.num_found == 2


def test_a_dry_run_finds_the_backbone_once_and_an_unknown_one_is_refused(
    made: Path, counted: type[CountedTable], tmp_path: Path
) -> None:
    dry_run = ("extract", made / "new", "--num-frames", 4, "--dry-run", "-o")
    assert run(*dry_run, made / "features", "--backbone", "lenet5").exit_code == 0
    assert counted.num_found == 1
    result = run(*dry_run, tmp_path / "s", "--backbone", "lenet6")
    assert result.exit_code == 2
    assert "did you mean 'lenet5'?" in result.stderr


def test_the_key_of_the_settings_is_the_key_of_the_store(made: Path) -> None:
    stream = Stream.of(LENET)
    assert stream.key == FeatureStore.open(made / "features").key
    assert stream.key.resolve_sampling() == Sampling("uniform", num_frames=4)
    assert stream.weights.id == stream.key.weights
    assert Stream.of_key(stream.key, weights="default", owner="run") == stream


def test_a_pooling_that_does_not_go_with_the_backbone_is_refused_before_the_weights_are_looked_for() -> None:
    with pytest.raises(UsageError, match="--pool max does not go with lenet5"):
        Stream.of(replace(LENET, pool="max", weights="nowhere.pth"))


def test_weights_can_be_left_unread() -> None:
    stream = Stream.of(replace(LENET, weights="nowhere.pth"), weights=WEIGHTS_NOT_READ)
    assert stream.weights.path is None


def test_a_run_of_other_weights_or_of_an_unknown_backbone_is_refused_by_its_path() -> None:
    key = Stream.of(LENET).key
    with pytest.raises(RunError, match=r"^my_run: .* other weights of lenet5 .* give that file with --weights"):
        Stream.of_key(replace(key, weights="0" * 64), weights="default", owner="my_run")
    with pytest.raises(RunError, match=r"^my_run: this vidpipe does not know its backbone: unknown backbone 'new_net'"):
        Stream.of_key(replace(key, backbone="new_net"), weights="default", owner="my_run")


def test_random_weights_of_a_key_need_no_file() -> None:
    stream = Stream.of_key(replace(Stream.of(LENET).key, weights="random"), weights="nowhere.pth", owner="run")
    assert (stream.weights.id, stream.weights.path) == ("random", None)


def test_the_engine_runs_the_backbone_of_the_stream() -> None:
    engine = Stream.of(LENET).load_engine(device="cpu", engine="torch", num_videos=1)
    assert (engine.name, engine.device, engine.dim) == ("torch", "cpu", 84)
    assert engine.preprocessing == Stream.of(LENET).spec.preprocessing
