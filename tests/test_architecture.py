"""The layout is the architecture: imports point one way, and each native library has one home."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import vidpipe

PACKAGE = Path(vidpipe.__file__).parent
MODULES = {
    ".".join(("vidpipe", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
TRAINING = ("fit", "fit_linear", "calibration", "crossvalidate", "choose", "checkpoints", "threads")
STAGES = ("extract", *TRAINING, "train", "evaluate", "predict", "report", "demo")
NOUNS = ("datasets", "features", "models", "video")
RESULTS = ("run", "run_folder", "metrics", "plots")
RECORDS = ("records", "config", "tables")
LAYERS = {"cli": 5, **dict.fromkeys(STAGES, 4), **dict.fromkeys(RESULTS, 3), **dict.fromkeys(NOUNS, 2)}
LAYERS |= {**dict.fromkeys(RECORDS, 1), "errors": 0}
BETWEEN_NOUNS = {("datasets", "features")}
HOMES = {
    "decord": {"vidpipe.video.decord_reader"},
    "av": {"vidpipe.video.container", "vidpipe.video.packets", "vidpipe.video.pyav_reader", "vidpipe.demo.videos"},
    "scenedetect": {"vidpipe.video.scenes"},
    "h5py": {"vidpipe.features.shard"},
    "threadpoolctl": {"vidpipe.threads"},
    "filelock": {"vidpipe.features.locks", "vidpipe.models.downloads"},
    "huggingface_hub": {"vidpipe.models.downloads"},
    "pebble": {"vidpipe.video.decoding"},
    "matplotlib": {"vidpipe.plots"},
    "jinja2": {"vidpipe.report.page"},
}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(module: str) -> str:
    """`vidpipe.video.reader` -> `video`"""
    return [*module.split("."), ""][1]


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_from_commands_to_stages_to_nouns_to_records(module: str) -> None:
    here = room(module)
    for imported in imports(MODULES[module]):
        there = room(imported)
        if not imported.startswith("vidpipe.") or there not in LAYERS or here not in LAYERS or there == here:
            continue
        if here in NOUNS and there in NOUNS:
            assert (here, there) in BETWEEN_NOUNS, f"{module} imports {imported}"
        else:
            assert LAYERS[there] <= LAYERS[here], f"{module} imports {imported}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {
        module: {
            name
            for imported in imports(path)
            for name in (imported, imported.rpartition(".")[0])
            if name in MODULES and name != "vidpipe"
        }
        for module, path in MODULES.items()
    }
    TopologicalSorter(graph).prepare()


def test_every_module_has_a_place_among_the_layers() -> None:
    assert {room(module) for module in MODULES} - {"", "__main__"} == set(LAYERS)


@pytest.mark.parametrize("library", HOMES)
def test_a_native_library_is_imported_only_at_home(library: str) -> None:
    users = {module for module, path in MODULES.items() if any(i.split(".")[0] == library for i in imports(path))}
    assert users == HOMES[library]


def test_click_is_used_by_the_command_line_alone() -> None:
    users = {module for module, path in MODULES.items() if any(i.split(".")[0] == "click" for i in imports(path))}
    assert {room(module) for module in users} == {"cli"}


@pytest.mark.parametrize("module", [name for name in MODULES if not name.endswith("__main__")])
def test_what_a_module_exports_is_there(module: str) -> None:
    imported = __import__(module, fromlist=["*"])
    for name in getattr(imported, "__all__", ()):
        assert hasattr(imported, name), f"{module}.{name}"


@pytest.mark.parametrize("arguments", [["--help"], ["extract", "--help"], ["train", "--help"]])
def test_nothing_heavy_is_imported_for(arguments: list[str]) -> None:
    program = f"""
import sys
sys.argv = ["vidpipe", *{arguments!r}]
from vidpipe.cli import main
try:
    main()
finally:
    assert not {{"torch", "torchvision", "timm", "numpy", "h5py"}} & set(sys.modules), "a heavy library was imported"
"""
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
