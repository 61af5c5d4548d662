"""Like errors have like exit codes: 2 for a path that is not there, 1 for one that holds something else."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.media import write_video
from tests.stores import make_sequence, make_store
from vidpipe.cli import main

PATH = "PATH"
"""Stands for the path in question."""
COMMANDS = {
    "extract INPUT": ("extract", PATH, "-o", "new"),
    "extract --config": ("extract", "a.mp4", "-o", "new", "--config", PATH),
    "extract --weights": ("extract", "a.mp4", "-o", "new", "--backbone", "efficientnet_lite0", "--weights", PATH),
    "train STORE": ("train", PATH, "-o", "new"),
    "train --labels": ("train", "store", "-o", "new", "--labels", PATH),
    "train --config": ("train", "store", "-o", "new", "--config", PATH),
    "evaluate RUN": ("evaluate", PATH, "store"),
    "evaluate STORE": ("evaluate", "run", PATH),
    "evaluate --labels": ("evaluate", "run", "store", "--labels", PATH),
    "predict RUN": ("predict", PATH, "a.mp4"),
    "predict INPUT": ("predict", "run", PATH),
    "predict --store": ("predict", "run", "a.mp4", "--store", PATH),
    "report RUN": ("report", PATH),
    "report --videos": ("report", "run", "--videos", PATH),
    "info PATH": ("info", PATH),
    "store verify": ("store", "verify", PATH),
    "store repair": ("store", "repair", PATH),
    "store merge": ("store", "merge", "store", PATH, "-o", "new"),
    "store compact": ("store", "compact", PATH),
    "store export": ("store", "export", PATH, "-o", "new"),
}
TAKES_ANY_VIDEO = {"report --videos", "extract INPUT", "predict INPUT"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, a run, a video; a folder and a file of something else."""
    folder = tmp_path_factory.mktemp("exit_codes")
    sequences = [make_sequence(f"{label}/{n}.mp4", seed=n) for n in range(4) for label in ("go", "stop")]
    make_store(folder / "store", sequences)
    write_video(folder / "a.mp4", 3)
    (folder / "other").mkdir()
    (folder / "other" / "notes.txt").write_text("nothing of vidpipe's")
    (folder / "notes.txt").write_text("\0 nothing\nof vidpipe's")
    quick = ("--head", "mean", "--no-refit", "--device", "cpu")
    trained = CliRunner().invoke(main, ["train", str(folder / "store"), "-o", str(folder / "run"), *quick])
    assert trained.exit_code == 0, trained.output
    return folder


@pytest.fixture(autouse=True)
def _in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def run(name: str, path: str) -> Result:
    return CliRunner().invoke(main, [path if argument == PATH else argument for argument in COMMANDS[name]])


@pytest.mark.parametrize("name", COMMANDS)
def test_a_path_that_is_not_there_is_wrong_usage_in_every_command(name: str) -> None:
    result = run(name, "nowhere")
    assert result.exit_code == 2, result.output
    assert "nowhere: no such" in result.stderr
    assert not Path("new").exists()


@pytest.mark.parametrize("what", ["other", "notes.txt"])
@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in TAKES_ANY_VIDEO])
def test_a_path_with_other_content_is_wrong_usage_only_for_a_config(name: str, what: str) -> None:
    result = run(name, what)
    assert result.exit_code == (2 if "--config" in name else 1), result.output
    assert "Errno" not in result.stderr
    assert "a bug in vidpipe" not in result.stderr


@pytest.mark.parametrize("name", ["extract INPUT", "predict INPUT"])
def test_a_folder_without_videos_is_no_wrong_usage(name: str) -> None:
    assert run(name, "other").exit_code == 1


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (("version",), "unknown command 'version'; use `vidpipe --version`"),
        (("help",), "unknown command 'help'; use `vidpipe --help`"),
        (("help", "train"), "unknown command 'help'; use `vidpipe train --help`"),
        (("models",), "unknown command 'models'; use `vidpipe backbones`"),
        (("verify", "features"), "unknown command 'verify'; use `vidpipe store verify`"),
        (("trian",), "unknown command 'trian'; did you mean 'train'?"),
    ],
)
def test_a_name_that_is_no_command_leads_to_what_is_meant(typed: tuple[str, ...], message: str) -> None:
    result = CliRunner().invoke(main, typed)
    assert result.exit_code == 2
    assert message in result.stderr
