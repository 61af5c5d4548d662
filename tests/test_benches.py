"""A short, seeded version of each reliability benchmark (`make bench` runs long ones), and that all scripts start."""

import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks.__main__ import put
from benchmarks.fuzz import fuzz
from benchmarks.gpu import Plan
from benchmarks.gpu import run as run_gpu
from benchmarks.kills import kill_often
from benchmarks.memory import CASES, large_clip, measure

MAX_GB = 3.0
ROOT = Path(__file__).parents[1]
SCRIPTS = [path for folder in ("benchmarks", "tools") for path in sorted((ROOT / folder).glob("[!_]*.py"))]


@pytest.mark.slow
def test_damaged_videos_do_not_hang_crash_or_give_wrong_rows(tmp_path: Path) -> None:
    outcomes = fuzz(30, 8, tmp_path)
    assert outcomes["stored"] > 5
    assert outcomes["stored, marked damaged"] > 5
    for outcome in ("wrong rows", "damaged shards", "not accounted for", "DecodeTimeoutError", "DecoderCrashError"):
        assert outcomes[outcome] == 0, outcome


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes left behind in /proc")
def test_a_killed_extraction_loses_nothing_that_was_sealed(tmp_path: Path) -> None:
    outcome = kill_often(3, 1, tmp_path, num_videos=12)
    assert outcome.num_kills == 3
    assert outcome.num_stores >= 1
    assert outcome.wrong == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads memory from /proc")
def test_a_large_video_takes_bounded_memory(tmp_path: Path) -> None:
    rss_gb, _, num_rows, _ = measure(
        replace(CASES["4k"], write=lambda folder: large_clip(folder, 3840, 2160, 30)), tmp_path
    )
    assert num_rows == 2 * 16  # of two streams
    assert rss_gb < MAX_GB


@pytest.mark.slow
def test_the_table_of_a_gpu_is_made_where_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    plan = Plan(backbones=("lenet5",), seconds=0.3, sizes=((64, 48),), num_frames=20, num_sequences=40)
    rows = [line.split(" | ") for line in run_gpu(plan).splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows] == [
        "| network",
        "| lenet5",
        "| videos",
        "| 64 × 48, 16 frames each",
        "| an epoch of an LSTM",
        "| 40 sequences of 16 × 1024",
    ]
    assert float(rows[1][5].replace(",", "")) > 0
    assert capsys.readouterr().err


def test_a_section_of_the_results_replaces_the_one_with_its_title() -> None:
    document = "# Results\n\nhead\n\n## one (`a`)\n\nold\n\n## two (`b`)\n\nkept\n"
    document = put(document, "## one (`a`)\n\nnew")
    assert document == "# Results\n\nhead\n\n## one (`a`)\n\nnew\n\n## two (`b`)\n\nkept\n"
    assert put(document, "## three\n\nx\n") == document + "\n## three\n\nx\n"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_every_benchmark_and_tool_can_be_imported(path: Path) -> None:
    assert import_module(f"{path.parent.name}.{path.stem}").__doc__


@pytest.mark.parametrize("module", ["benchmarks", "tools.count_sizes", "tools.train_lenet5"])
def test_a_script_describes_itself_and_does_nothing_else(module: str) -> None:
    command = [sys.executable, "-m", module, "--help"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert f"python -m {module}" in result.stdout
