"""The demo end to end, on smaller sets than its default."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from vidpipe.cli import main
from vidpipe.demo import stage


def run_demo(folder: Path, num_groups: int) -> str:
    """Run the demo; return what it prints."""
    result = CliRunner().invoke(main, ["demo", str(folder), "--groups", str(num_groups), "--annotations"])
    assert result.exit_code == 0, result.output
    assert (folder / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((folder / "videos").rglob("*.mp4"))) == num_groups * 8
    annotated = json.loads((folder / "annotations.json").read_text(encoding="utf-8"))
    assert {image["file_name"] for image in annotated["images"]} == {
        path.relative_to(folder / "videos").as_posix() for path in (folder / "videos").rglob("*.mp4")
    }
    assert (folder / "timeline.png").read_bytes().startswith(b"\x89PNG")
    assert "long.mp4" in (folder / "timeline.html").read_text(encoding="utf-8")
    return result.stdout


def shares_correct(output: str) -> dict[str, float]:
    """By classifier, the percentage of the test videos."""
    lines = [line.split() for line in output.splitlines() if "test videos correct" in line]
    return {name: float(share.rstrip("%")) for name, share, *_ in lines}


@pytest.mark.slow
def test_the_demo_shows_that_order_matters(tmp_path: Path) -> None:
    output = run_demo(tmp_path / "demo", 7)
    correct = shares_correct(output)
    assert correct["fusion"] >= 90
    assert correct["efficientnet_lite0/lstm"] >= correct["mean"] + 15
    assert correct["mean"] <= 60
    share = re.search(r"right label ([0-9.]+)% of the time", output)
    assert share is not None
    assert float(share[1]) >= 75


@pytest.mark.slow
def test_a_small_demo_runs_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "EXTRACT", replace(stage.EXTRACT, backbone="efficientnet_lite0"))
    monkeypatch.setattr(stage, "TRAIN", replace(stage.TRAIN, head="statistics"))
    correct = shares_correct(run_demo(tmp_path / "demo", 3))
    assert correct["statistics"] >= 90
    assert correct["mean"] <= 60
