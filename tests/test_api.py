"""`import vidpipe`: what it gives, what it costs, and how it reports wrong settings."""

import json
import subprocess
import sys
import tomllib
from dataclasses import asdict
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

import vidpipe
from tests.commands import run
from tests.media import moving_square, write_frames, write_video
from tests.stores import make_sequence, make_store
from vidpipe.errors import ConfigError, UsageError


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve videos of two folders, two of each of six cameras."""
    sequences = [make_sequence(f"{label}/cam{n}.mp4", seed=n) for n in range(6) for label in ("go", "stop")]
    return make_store(tmp_path_factory.mktemp("api") / "store", sequences).path


def test_importing_vidpipe_imports_nothing_heavy() -> None:
    program = """
import sys
import vidpipe
assert vidpipe.__version__
assert {"extract", "train", "evaluate", "predict", "timelines", "FeatureStore", "Run"} <= set(dir(vidpipe))
vidpipe.extract, vidpipe.predict
heavy = {"torch", "torchvision", "timm", "numpy", "h5py", "av", "sklearn", "click"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_every_public_name_is_there() -> None:
    for name in vidpipe.__all__:
        assert getattr(vidpipe, name).__doc__, name


def test_a_stage_does_not_replace_the_function_of_its_name() -> None:
    for name in ("extract", "train", "evaluate", "predict"):
        import_module(f"vidpipe.stages.{name}")
        assert callable(getattr(vidpipe, name)), name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'vidpipe' has no attribute 'extrakt'"):
        vidpipe.extrakt  # noqa: B018


def test_types_are_shipped() -> None:
    assert (files("vidpipe") / "py.typed").is_file()
    project = tomllib.loads((Path(vidpipe.__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    assert "py.typed" in project["tool"]["setuptools"]["package-data"]["vidpipe"]


def test_an_unknown_setting_is_an_error_with_the_nearest_name(store: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown setting 'num_frame'; did you mean 'num_frames'\?"):
        vidpipe.extract(tmp_path, tmp_path / "s", num_frame=3)
    with pytest.raises(ConfigError, match=r"unknown setting 'hed'; did you mean 'head'\?"):
        vidpipe.train(store, tmp_path / "run", hed="lstm")
    with pytest.raises(ConfigError, match=r"unknown setting 'label'; did you mean 'labels'\?"):
        vidpipe.evaluate(tmp_path / "run", store, label="labels.csv")
    with pytest.raises(ConfigError, match="unknown setting 'num_frames'"):
        vidpipe.predict(tmp_path / "run", tmp_path, num_frames=3)
    with pytest.raises(ConfigError, match=r"unknown setting 'strid'; did you mean 'stride'\?"):
        vidpipe.timelines(tmp_path / "run", tmp_path, strid=1.0)


def test_a_wrong_value_is_reported_before_any_file_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="epochs = 0: 1 or more is needed"):
        vidpipe.train(tmp_path / "nowhere", tmp_path / "run", epochs=0)
    with pytest.raises(UsageError, match="goes with"):
        vidpipe.extract("nowhere", tmp_path / "s", num_frames=3, sampling="fps")
    with pytest.raises(UsageError, match="goes with train"):
        vidpipe.evaluate(tmp_path / "run", tmp_path / "s", split="all")
    with pytest.raises(ConfigError, match=r"stride = 0\.0: 0\.01 or more is needed"):
        vidpipe.timelines(tmp_path / "nowhere", tmp_path, stride=0)


def test_a_path_that_does_not_exist_is_wrong_usage(store: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere: no such"):
        vidpipe.extract("nowhere", tmp_path / "s")
    with pytest.raises(UsageError, match="nowhere: no such"):
        vidpipe.train("nowhere", tmp_path / "run")
    with pytest.raises(UsageError, match="nowhere: no such"):
        vidpipe.predict("nowhere", tmp_path)
    with pytest.raises(UsageError, match="nowhere: no such"):
        vidpipe.timelines("nowhere", tmp_path)
    assert not (tmp_path / "run").exists()


def test_training_takes_labels_and_settings_by_name(store: Path, tmp_path: Path) -> None:
    rows = [f"{label}/cam{n}.mp4,{label.upper()}" for n in range(6) for label in ("go", "stop")]
    (tmp_path / "labels.csv").write_text("\n".join(["video,label", *rows]))
    labels: dict[str, Any] = {"labels": tmp_path / "labels.csv", "group_by": "cam[0-9]"}
    opened = vidpipe.FeatureStore.open(store)
    result = vidpipe.train(
        opened, tmp_path / "run", head="statistics", motion=["raw", "centred"], refit=False, device="cpu", **labels
    )
    assert result.run.class_names == ("GO", "STOP")
    assert result.run.config.motion == "raw,centred"
    report = vidpipe.evaluate(vidpipe.Run.open(tmp_path / "run"), opened, device="cpu", **labels)
    assert report.evaluations["statistics"] == result.evaluations["test"]["statistics"]


def test_one_input_or_several_may_be_given(tmp_path: Path) -> None:
    videos = [write_video(tmp_path / name, 4) for name in ("a.mp4", "b.mp4")]
    settings: dict[str, Any] = {"backbone": "lenet5", "num_frames": 2, "device": "cpu", "workers": 1}
    assert vidpipe.extract(str(videos[0]), tmp_path / "s", **settings).num_stored == 1
    summary = vidpipe.extract(videos, tmp_path / "s", **settings)
    assert (summary.num_stored, summary.num_skipped) == (1, 1)


def test_timelines_are_those_that_the_command_prints(tmp_path: Path) -> None:
    quick: dict[str, Any] = {"device": "cpu", "workers": 1}
    for number in range(6):
        for label in ("left", "right"):
            frames = moving_square(number, to_the_right=label == "right")
            write_frames(tmp_path / "clips" / label / f"{number}.mp4", frames)
    vidpipe.extract(tmp_path / "clips", tmp_path / "features", backbone="lenet5", num_frames=4, **quick)
    vidpipe.train(tmp_path / "features", tmp_path / "run", head="mean", device="cpu")
    joined = [frame for number in range(4) for frame in moving_square(number, to_the_right=number % 2 == 0)]
    write_frames(tmp_path / "long.mp4", joined)
    settings: dict[str, Any] = {"change_cost": 0, "stride": 0.24, "min_confidence": 0.5, **quick}
    (found,) = vidpipe.timelines(tmp_path / "run", tmp_path / "long.mp4", store=str(tmp_path / "dense"), **settings)
    options = [text for name, value in settings.items() for text in (f"--{name.replace('_', '-')}", value)]
    command = ("predict", tmp_path / "run", tmp_path / "long.mp4", "--timeline", "--format", "json", "--curves")
    result = run(*command, *options)
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    segments = [{**asdict(one), "person": None} for one in found.segments]
    assert segments == [{**one, "person": None} for one in printed["segments"]]
    assert found.curve is not None
    assert found.curve.pts_seconds.tolist() == printed["curve"]["pts_seconds"]
    assert "long.mp4" in vidpipe.FeatureStore.open(tmp_path / "dense")
