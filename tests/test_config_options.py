"""--config as a user meets it: what an option does to a file's settings, and what may stand in the file."""

import json
from pathlib import Path

import pytest

from tests.commands import LENET, run
from tests.media import write_video
from tests.stores import make_sequence, make_store
from vidpipe.features.store import FeatureStore
from vidpipe.runs.run import Run

QUICK = ("--device", "cpu", "--no-refit", "--no-calibrate")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("config") / "a.mp4", 12)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve videos of two folders, two of each of six cameras."""
    sequences = [make_sequence(f"{label}/cam{n}.mp4", seed=n) for n in range(6) for label in ("go", "stop")]
    return make_store(tmp_path_factory.mktemp("config") / "store", sequences).path


def write_config(folder: Path, text: str) -> Path:
    (folder / "c.toml").write_text(text)
    return folder / "c.toml"


@pytest.mark.parametrize(
    ("text", "options", "sampling"),
    [
        ("sampling = 'scene'\nnum_frames = 3", ("--sampling", "fps"), {"method": "fps", "fps": 2.0}),
        ("num_frames = 3", ("--sampling", "fps", "--fps", 1), {"method": "fps", "fps": 1.0}),
        ("sampling = 'fps'\nfps = 9", ("--sampling", "uniform"), {"method": "uniform", "num_frames": 16}),
        ("sampling = 'uniform'\nnum_frames = 3", ("--sampling", "scene"), {"method": "scene", "num_frames": 4}),
        ("sampling = 'uniform'\nnum_frames = 3", ("--sampling", "uniform"), {"method": "uniform", "num_frames": 3}),
        ("fps = 3", ("--sampling", "fps"), {"method": "fps", "fps": 3.0}),
    ],
)
def test_an_option_that_replaces_the_sampling_drops_its_parameters(
    video: Path, tmp_path: Path, text: str, options: tuple[object, ...], sampling: dict[str, object]
) -> None:
    config = write_config(tmp_path, f"[extract]\n{text}\n")
    result = run("extract", video, "-o", tmp_path / "s", "--config", config, *options, *LENET)
    assert result.exit_code == 0, result.output
    assert FeatureStore.open(tmp_path / "s").key.sampling == sampling


def test_options_that_contradict_one_another_are_still_refused(video: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, "[extract]\nsampling = 'scene'\n")
    result = run("extract", video, "-o", tmp_path / "s", "--config", config, "--fps", 2, *LENET)
    assert result.exit_code == 2
    assert "--fps goes with --sampling fps, not with --sampling scene" in result.stderr


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("head = 'lstm'\nensemble = 3", ("--head", "mean"), {"head": "mean", "ensemble": 1}),
        ("leave_one_group_out = true", ("--folds", 2), {"folds": 2, "leave_one_group_out": False}),
        ("folds = 3", ("--leave-one-group-out",), {"folds": None, "leave_one_group_out": True}),
    ],
)
def test_an_option_that_replaces_a_head_or_a_protocol_drops_what_does_not_go_with_it(
    store: Path, tmp_path: Path, text: str, options: tuple[object, ...], expected: dict[str, object]
) -> None:
    config = write_config(tmp_path, f"[train]\n{text}\ngroup_by = 'cam[0-9]'\n")
    result = run("train", store, "-o", tmp_path / "run", "--config", config, *options, *QUICK)
    assert result.exit_code == 0, result.output
    trained = Run.open(tmp_path / "run").config
    assert {name: getattr(trained, name) for name in expected} == expected


def test_labels_of_the_file_are_read_from_the_working_folder_and_evaluated_alike(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [f"{label}/cam{n}.mp4;{label.upper()};{n}" for n in range(6) for label in ("go", "stop")]
    (tmp_path / "labels.csv").write_text("\n".join(["Datei;Klasse;camera", *rows, "x/missing.mp4;GO;1"]))
    (tmp_path / "elsewhere").mkdir()
    table = (
        "labels = 'labels.csv'\nvideo_column = 'Datei'\nlabel_column = 'Klasse'\n"
        "group_by = 'camera'\nskip_missing = true\nsplit = '1'\n"
    )
    config = write_config(
        tmp_path / "elsewhere", f"[train]\n{table}\n[evaluate]\n{table}format = 'json'\n[predict]\ntop = 1\n"
    )
    monkeypatch.chdir(tmp_path)
    result = run("train", store, "-o", tmp_path / "run", "--config", config, *QUICK)
    assert result.exit_code == 0, result.output
    assert "groups from the labels: 6 groups" in result.stdout
    assert Run.open(tmp_path / "run").class_names == ("GO", "STOP")
    evaluated = run("evaluate", tmp_path / "run", store, "--config", config)
    assert json.loads(evaluated.stdout)["class_names"] == ["GO", "STOP"], evaluated.output
    again = run("train", store, "-o", tmp_path / "again", "--config", tmp_path / "run" / "config.toml", *QUICK)
    assert again.exit_code == 0, again.output


def test_the_settings_of_predict_may_stand_in_the_file(video: Path, tmp_path: Path) -> None:
    for first_number, label in enumerate(("go", "stop")):
        for number in range(4):
            (tmp_path / "v" / label).mkdir(parents=True, exist_ok=True)
            write_video(tmp_path / "v" / label / f"{number}.mp4", 4 + number, first_number=50 * first_number)
    assert run("extract", tmp_path / "v", "-o", tmp_path / "s", "--num-frames", 2, *LENET).exit_code == 0
    assert run("train", tmp_path / "s", "-o", tmp_path / "run", "--head", "mean", *QUICK).exit_code == 0
    config = write_config(
        tmp_path, f"[predict]\ntop = 1\nformat = 'json'\nmin_confidence = 1.0\nstore = '{tmp_path / 's'}'\n"
    )
    result = run("predict", tmp_path / "run", tmp_path / "v" / "go" / "0.mp4", "--config", config)
    (row,) = map(json.loads, result.stdout.splitlines())
    assert (row["status"], len(row["predictions"])) == ("unknown", 1)
    result = run("predict", tmp_path / "run", tmp_path / "v" / "go" / "0.mp4", "--config", config, "--top", 2)
    assert len(json.loads(result.stdout)["predictions"]) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("explain", "run", "run", "https://host//videos/a.mp4", "-o", "why"),
        ("predict", "https://host//videos/a.mp4", "a.mp4"),
        ("train", "s", "-o", "r", "--labels", "https://host//videos/a.mp4"),
        ("train", "https://host//videos/a.mp4", "-o", "r"),
        ("extract", "a.mp4", "-o", "s", "--config", "https://host//videos/a.mp4"),
    ],
)
def test_a_url_is_echoed_as_typed_with_the_remedy(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "https://host//videos/a.mp4: URLs are not read; download the file, and name it here" in result.stderr
