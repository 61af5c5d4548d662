"""Every command and every Python block of the README and of docs/ runs, and every option is described."""

import json
import re
import shlex
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import click
import pytest
import torch
import torchvision
import transformers
from click.testing import CliRunner

from tests.faces import WHEEL, write_bright_mtcnn, write_facenet, write_wheel
from tests.media import moving_square, write_frames
from vidpipe.backbones.table import BACKBONES
from vidpipe.cli import COMMANDS, main

ROOT = Path(__file__).parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
OTHER_PROGRAMS = re.compile(r"(#SBATCH|aws s3 sync) (\\\n|[^`\n])*")
TEXT = OTHER_PROGRAMS.sub("", "\n".join(PAGES.values()))
LONG_PAGES = [
    f"docs/{name}.md"
    for name in (
        *("backbones", "decoding", "explaining", "extracting", "faces", "finetuning", "networks", "predicting"),
        *("ray", "regions", "scale", "search", "timeline", "training"),
    )
]
IN_EVERY_COMMAND = {"--help", "--quiet", "--debug", "--version"}
OPTION = re.compile(r"(?<![\w-])--[A-Za-z][A-Za-z-]*")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGES[page], flags=re.DOTALL)


def commands(page: str) -> list[list[str]]:
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
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
    joined = [frame for number in range(8) for frame in moving_square(number, to_the_right=number % 2 == 0)]
    write_frames(folder / "long.mp4", joined)
    write_timelines(folder)
    write_boxes(folder)


def write_boxes(folder: Path) -> None:
    """The squares in the labelled videos, as COCO JSON."""
    images, annotations = list[dict[str, Any]](), list[dict[str, Any]]()
    for label in ("fight", "no_fight"):
        for number, step in product(range(6), range(0, 12, 2)):
            one = {"id": len(images), "file_name": f"{label}/{number}.mp4", "frame_index": step}
            images.append({**one, "width": 96, "height": 64})
            left = step * 6 if label == "fight" else 66 - step * 6
            annotations.append({"id": len(images), "image_id": one["id"], "category_id": 1, "bbox": [left, 20, 24, 24]})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
    (folder / "boxes.json").write_text(json.dumps(content))


def write_timelines(folder: Path) -> None:
    """True and predicted segments of two videos, and intervals of the labelled ones."""
    header = "video,start_seconds,stop_seconds,label"
    (folder / "truth.csv").write_text(f"{header}\n0.mp4,0,0.4,fight\n1.mp4,0.2,0.5,no_fight\n")
    segment = {"start_seconds": 0.0, "stop_seconds": 0.5, "label": "fight", "probability": 0.75}
    (folder / "predicted.jsonl").write_text(json.dumps({"video": "0.mp4", "segments": [segment]}) + "\n")
    rows = [f"{label}/{number}.mp4,0,0.4,{label}" for label in ("fight", "no_fight") for number in range(6)]
    (folder / "intervals.csv").write_text("\n".join([header, *rows]))
    for name in ("recording.ts", "camera/1.mp4", "camera/2.mp4"):
        write_frames(folder / name, moving_square(3, to_the_right=True) * 3)


def write_videomae(folder: Path) -> None:
    """A tiny model, with random weights, as transformers saves one."""
    config = transformers.VideoMAEConfig(
        num_frames=4, hidden_size=24, num_hidden_layers=1, num_attention_heads=4, intermediate_size=32
    )
    transformers.VideoMAEModel(config).save_pretrained(folder / "videomae")


def write_ucf101(folder: Path) -> None:
    """A few videos, the official lists and a weights file, with the names and formats of UCF101 and torch."""
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for index, name in enumerate(("Archery", "Basketball"), start=1):
        for group in range(1, 6):
            video = f"{name}/v_{name}_g{group:02}_c01.avi"
            frames = moving_square(group, to_the_right=index == 1)[:4]
            write_frames(folder / "UCF-101" / video, frames, codec="mpeg4")
            lists["test" if group == 1 else "train"].append(video if group == 1 else f"{video} {index}")
    (folder / "ucfTrainTestlist").mkdir()
    for subset, lines in lists.items():
        (folder / "ucfTrainTestlist" / f"{subset}list01.txt").write_text("\n".join(lines) + "\n")
    weights = folder / "torch" / "hub" / "checkpoints" / BACKBONES["inception_v3"].weights.rsplit("/", 1)[1]
    weights.parent.mkdir(parents=True)
    torch.save(torchvision.models.inception_v3(weights=None, init_weights=False).state_dict(), weights)


def write_face_weights(folder: Path) -> None:
    """Files of the names and formats of facenet-pytorch's; faces are what is bright."""
    write_wheel(folder / WHEEL, write_bright_mtcnn(folder / "mtcnn", limit=-0.1))
    write_facenet(folder / "20180402-114759-vggface2.pt")


def run(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, f"vidpipe {' '.join(arguments)}\n{result.output}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the videos and labels that the pages name, after the README's commands."""
    folder = tmp_path_factory.mktemp("readme")
    write_labelled_videos(folder)
    write_videomae(folder)
    write_face_weights(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TORCH_HOME", str(folder / "torch"))
        for arguments in commands("README.md"):
            run(arguments)
        yield folder


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.slow if page in LONG_PAGES else ())
        for page in PAGES
        if page not in ("README.md", "docs/ucf101.md")
    ],
)
def test_every_command_of_a_page_runs_after_those_of_the_readme(page: str, folder: Path) -> None:
    for arguments in commands(page):
        run(arguments)


@pytest.mark.slow
def test_every_command_of_the_page_about_ucf101_runs(folder: Path) -> None:
    write_ucf101(folder)
    for arguments in commands("docs/ucf101.md"):
        run(arguments)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=() if page == "README.md" else pytest.mark.slow)
        for page in PAGES
        if "```python" in PAGES[page]
    ],
)
def test_every_python_block_runs(page: str, folder: Path) -> None:
    for block in blocks(page, "python"):
        exec(compile(block, page, "exec"), {"__name__": "__main__"})


def test_python_in_the_pages_imports_vidpipe_alone() -> None:
    lines = [line.strip() for page in PAGES for block in blocks(page, "python") for line in block.splitlines()]
    assert {line for line in lines if line.startswith(("import ", "from "))} == {"import vidpipe"}


def test_the_pages_run_every_command_but_the_demo_which_has_its_own_test() -> None:
    assert {arguments[0] for page in PAGES for arguments in commands(page)} == set(COMMANDS) - {"demo"}
    assert "make demo" in PAGES["README.md"]


def test_the_readme_links_to_every_page() -> None:
    assert set(re.findall(r"\((docs/[^)]+[.]md)\)", PAGES["README.md"])) == set(PAGES) - {"README.md"}


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_links_to_is_there(page: str) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", PAGES[page]):
        assert ((ROOT / page).parent / target).exists(), target


def below(command: click.Command) -> Iterator[click.Command]:
    """A command and those below it."""
    yield command
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            found = command.get_command(click.Context(command), name)
            assert found is not None
            yield from below(found)


def options() -> Iterator[tuple[str, ...]]:
    """The long names of each option of each command: `("--refit", "--no-refit")`."""
    for command in below(main):
        for parameter in command.get_params(click.Context(command)):
            yield tuple(name for name in (*parameter.opts, *parameter.secondary_opts) if name.startswith("--"))


def test_every_option_that_a_page_names_is_one() -> None:
    assert set(OPTION.findall(TEXT)) <= {name for names in options() for name in names}


def test_every_option_is_in_a_page() -> None:
    named = set(OPTION.findall(TEXT)) | IN_EVERY_COMMAND
    assert [names for names in options() if names and not named & set(names)] == []
