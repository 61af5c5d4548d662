"""The demo end to end, on a smaller set than its default."""

import re
from pathlib import Path

from click.testing import CliRunner

from vidpipe.cli import main


def test_the_demo_shows_that_order_matters(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["demo", str(tmp_path / "demo"), "--groups", "7"])
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines() if "test videos correct" in line]
    correct = {name: float(share.rstrip("%")) for name, share, *_ in lines}
    assert correct["fusion"] >= 90
    assert correct["efficientnet_lite0/lstm"] >= correct["mean"] + 15
    assert correct["mean"] <= 60
    assert (tmp_path / "demo" / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "demo" / "videos").rglob("*.mp4"))) == 7 * 8
    share = re.search(r"right label ([0-9.]+)% of the time", result.stdout)
    assert share is not None
    assert float(share[1]) >= 75
    assert (tmp_path / "demo" / "timeline.png").read_bytes().startswith(b"\x89PNG")
    assert "long.mp4" in (tmp_path / "demo" / "timeline.html").read_text(encoding="utf-8")
