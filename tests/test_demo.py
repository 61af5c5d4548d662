"""The demo end to end, on a smaller set than its default."""

from pathlib import Path

from click.testing import CliRunner

from vidpipe.cli import main


def test_the_demo_shows_that_order_matters(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["demo", str(tmp_path / "demo"), "--groups", "7"])
    assert result.exit_code == 0, result.output
    run, baseline = (line for line in result.stdout.splitlines() if "test videos correct" in line)
    lstm, mean = (float(line.split()[1].rstrip("%")) for line in (run, baseline))
    assert lstm >= mean + 15
    assert mean <= 60
    assert (tmp_path / "demo" / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "demo" / "videos").rglob("*.mp4"))) == 7 * 8
