"""The layout is the architecture: imports point one way, and each native library has one home."""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

import vidpipe

PACKAGE = Path(vidpipe.__file__).parent
ROOT = PACKAGE.parent
MODULES = {
    ".".join(("vidpipe", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
MAY_IMPORT = {
    "errors": "",
    "version": "",
    "records": "errors",
    "config": "errors records",
    "csv_files": "errors records config",
    "html_pages": "errors version",
    "video": "errors version records config csv_files",
    "backbones": "errors records config features",
    "features": "errors version records config",
    "regions": "errors records config video backbones",
    "heads": "errors records config",
    "similarity": "errors records config features",
    "datasets": "errors records config csv_files video features similarity",
    "runs": "errors version records config features datasets heads",
    "training": "errors records config features datasets heads backbones runs timeline",
    "execution": "errors version records config video backbones regions features",
    "finetuning": "errors records config video backbones heads runs training",
    "explain": "errors version records config html_pages video backbones features datasets heads runs",
    "timeline": "errors version records config csv_files html_pages video features datasets heads runs",
    "search": "errors version records config csv_files html_pages video features similarity datasets heads runs"
    " training",
    "stages": "errors records config video backbones regions features datasets heads runs training timeline explain"
    " similarity search execution finetuning",
    "api": "errors records config csv_files video regions features similarity datasets runs training explain search"
    " execution stages",
    "report": "errors version records config html_pages features datasets heads video runs explain stages",
    "demo": "errors records config features datasets video regions runs timeline execution stages",
    "cli": "errors version records config csv_files video backbones regions features datasets heads runs training"
    " similarity timeline explain search execution stages api report demo",
    "": "version api features runs",
    "__main__": "cli",
}
"""What each folder, and each module beside the folders, may import of the others: a line a folder."""
HOMES = {
    "decord": {"vidpipe.video.reader_decord"},
    "torchcodec": {"vidpipe.video.reader_nvdec"},
    "av": {
        "vidpipe.video.container",
        "vidpipe.video.packets",
        "vidpipe.video.reader_pyav",
        "vidpipe.video.reader_keyframe",
        "vidpipe.video.live",
        "vidpipe.video.drawn_copy",
        "vidpipe.demo.videos",
    },
    "scenedetect": {"vidpipe.video.scenes"},
    "onnxruntime": {"vidpipe.backbones.engines.onnx"},
    "cv2": {"vidpipe.backbones.flow"},
    "h5py": {f"vidpipe.features.shard.{module}" for module in ("opening", "reading", "writing", "plain")},
    "threadpoolctl": {"vidpipe.training.threads"},
    "filelock": {"vidpipe.features.locks", "vidpipe.backbones.downloads"},
    "huggingface_hub": {"vidpipe.backbones.downloads"},
    "transformers": {"vidpipe.backbones.video_transformers"},
    "peft": {"vidpipe.finetuning.lora"},
    "fsspec": {"vidpipe.video.remote"},
    "pebble": {"vidpipe.video.decoding"},
    "ray": {"vidpipe.execution.ray_cluster", "vidpipe.execution.ray_data"},
    "matplotlib": {"vidpipe.runs.plots", "vidpipe.timeline.strip", "vidpipe.search.cluster_map"},
    "pytorch_metric_learning": {"vidpipe.search.embedding_training"},
    "jinja2": {"vidpipe.html_pages"},
    "faiss": {"vidpipe.similarity.shortlist"},
    "pysubs2": {"vidpipe.timeline.formats.subtitles"},
    "segmentation_models_pytorch": {"vidpipe.regions.networks.segmentation"},
    "pympi": {"vidpipe.timeline.formats.elan"},
    "torchmetrics": {"vidpipe.regions.training.scoring"},
}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def exports(path: Path) -> set[str]:
    """The names in a module's `__all__`."""
    for node in tree(path).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def imported_names() -> dict[str, set[str]]:
    """The names that other modules, tests, benchmarks and tools import, by the module that has them."""
    found = defaultdict(set)
    for folder in ("vidpipe", "tests", "benchmarks", "tools"):
        for path in (ROOT / folder).rglob("*.py"):
            for module, _, name in (imported.rpartition(".") for imported in imports(path)):
                if module in MODULES and f"{module}.{name}" not in MODULES and not name.startswith("_"):
                    found[module].add(name)
    return found


EXPORTS = {module: exports(path) for module, path in MODULES.items() if not module.endswith("__main__")}
IMPORTED = imported_names()


def room(module: str) -> str:
    """`vidpipe.video.reader` -> `video`; empty for the package itself."""
    return [*module.split("."), ""][1]


@pytest.mark.parametrize("module", MODULES)
def test_a_folder_imports_only_what_its_line_allows(module: str) -> None:
    here = room(module)
    allowed = {here, *MAY_IMPORT[here].split()}
    for imported in imports(MODULES[module]):
        if imported.startswith("vidpipe.") and room(imported) in MAY_IMPORT:
            assert room(imported) in allowed, f"{module} imports {imported}"


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


def test_every_folder_has_its_line() -> None:
    assert {room(module) for module in MODULES} == set(MAY_IMPORT)


def test_the_lines_themselves_have_no_circle() -> None:
    TopologicalSorter({folder: allowed.split() for folder, allowed in MAY_IMPORT.items()}).prepare()


@pytest.mark.parametrize("library", HOMES)
def test_a_native_library_is_imported_only_at_home(library: str) -> None:
    users = {module for module, path in MODULES.items() if any(i.split(".")[0] == library for i in imports(path))}
    assert users == HOMES[library]


def test_click_is_used_by_the_command_line_alone() -> None:
    users = {module for module, path in MODULES.items() if any(i.split(".")[0] == "click" for i in imports(path))}
    assert {room(module) for module in users} == {"cli"}


@pytest.mark.parametrize("module", EXPORTS)
def test_what_a_module_exports_is_there(module: str) -> None:
    imported = import_module(module)
    for name in EXPORTS[module]:
        assert hasattr(imported, name), f"{module}.{name}"


@pytest.mark.parametrize("module", EXPORTS)
def test_what_others_import_from_a_module_is_exported(module: str) -> None:
    assert sorted(IMPORTED.get(module, set()) - EXPORTS[module]) == []


@pytest.mark.parametrize("module", EXPORTS)
def test_what_a_module_does_not_export_has_a_leading_underscore(module: str) -> None:
    functions_and_classes = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    public = {
        node.name
        for node in tree(MODULES[module]).body
        if isinstance(node, functions_and_classes) and not (room(module) == "cli" and is_command(node))
    }
    assert sorted(name for name in public - EXPORTS[module] if not name.startswith("_")) == []


def is_command(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    """Whether click finds a function, so that no module imports it."""
    return any(".command" in ast.unparse(one) or "_command" in ast.unparse(one) for one in node.decorator_list)


@pytest.mark.parametrize("arguments", [["--help"], ["extract", "--help"], ["train", "--help"]])
def test_nothing_heavy_is_imported_for(arguments: list[str]) -> None:
    program = f"""
import sys
sys.argv = ["vidpipe", *{arguments!r}]
from vidpipe.cli import main
try:
    main()
finally:
    heavy = {{"torch", "torchvision", "timm", "transformers", "numpy", "h5py"}}
    assert not heavy & set(sys.modules), "a heavy library was imported"
"""
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)


def test_libraries_of_models_are_imported_only_to_build_one() -> None:
    program = """
import sys
import vidpipe.stages.predict, vidpipe.stages.timeline
assert not {"timm", "torchvision", "transformers", "onnxruntime"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)


@pytest.mark.parametrize("path", sorted((ROOT / "tests").glob("*.py")), ids=lambda path: path.name)
def test_helpers_are_imported_from_helper_modules(path: Path) -> None:
    assert re.findall(r"(?:from|import) tests[.]test_\w+", path.read_text(encoding="utf-8")) == []
