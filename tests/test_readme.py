"""Every command and every line of Python in the README is run, in order, as it stands there."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import torch
import torchvision
from click.testing import CliRunner

from tests.media import moving_square, write_frames
from vidpipe.backbones.table import BACKBONES
from vidpipe.cli import COMMANDS, main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("vidpipe ")]


def write_labelled_videos(folder: Path) -> None:
    for number in range(6):
        for label in ("fight", "no_fight"):
            write_frames(
                folder / "videos" / label / f"{number}.mp4", moving_square(number, to_the_right=label == "fight")
            )
    for number in range(2):
        write_frames(folder / "new_videos" / f"{number}.mp4", moving_square(number, to_the_right=True))
    rows = [f"{label}/{number}.mp4,{label},g{number}" for label in ("fight", "no_fight") for number in range(6)]
    (folder / "labels.csv").write_text("\n".join(["video,label,group", *rows]))
    (folder / "configs").symlink_to(ROOT / "configs")


def write_ucf101(folder: Path) -> None:
    """A few videos, the official lists and a file of weights, each where and as UCF101 and torch have them."""
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for index, name in enumerate(("Archery", "Basketball"), start=1):
        for group in range(1, 6):
            video = f"{name}/v_{name}_g{group:02}_c01.avi"
            frames = moving_square(group, to_the_right=index == 1)[:4]
            write_frames(folder / "UCF-101" / video, frames, codec="mpeg4")
            lists["test" if group == 1 else "train"].append(video if group == 1 else f"{video} {index}")
    (folder / "ucfTrainTestlist").mkdir()
    for part, lines in lists.items():
        (folder / "ucfTrainTestlist" / f"{part}list01.txt").write_text("\n".join(lines) + "\n")
    weights = folder / "torch" / "hub" / "checkpoints" / BACKBONES["inception_v3"].weights.rsplit("/", 1)[1]
    weights.parent.mkdir(parents=True)
    torch.save(torchvision.models.inception_v3(weights=None, init_weights=False).state_dict(), weights)


@pytest.fixture
def as_in_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_labelled_videos(tmp_path)
    write_ucf101(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


def test_every_command_and_python_block_runs(as_in_the_readme: Path) -> None:
    for arguments in commands():
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, f"vidpipe {' '.join(arguments)}\n{result.output}"
    assert (as_in_the_readme / "confusion.png").exists()
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})


def test_the_readme_shows_every_command_but_the_demo_which_has_its_own_test() -> None:
    assert {arguments[0] for arguments in commands()} == set(COMMANDS) - {"demo"}
    assert "make demo" in README


def test_what_the_readme_links_to_is_there() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def helps(command: click.Command) -> Iterator[str]:
    """Every help text of a command and of those below it."""
    context = click.Context(command)
    yield command.get_help(context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from helps(below)


def test_every_option_the_readme_names_is_one() -> None:
    known = "".join(helps(main))
    for option in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README)):
        assert option in known, option


def test_every_option_of_extract_is_shown_or_explained() -> None:
    (extract,) = (main.get_command(click.Context(main), "extract"),)
    assert extract is not None
    options = {option for parameter in extract.params for option in parameter.opts if option.startswith("--")}
    assert {option for option in options if option not in README} <= {"--force", "--quiet", "--debug", "--output"}
