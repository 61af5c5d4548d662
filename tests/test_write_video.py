"""`predict --timeline --write-video`: an annotated copy of each video beside its segments."""

import json
from pathlib import Path

import av
import pytest

from tests.commands import run
from tests.media import moving_square, write_frames
from vidpipe.errors import VidpipeError
from vidpipe.timeline import annotated

CPU = ("--device", "cpu")


@pytest.fixture(scope="module")
def folder(made: Path) -> Path:
    """`made`, and `long/`: a video of four clips, one in a folder, and a file that is no video."""
    frames = [frame for seed in range(4) for frame in moving_square(50 + seed, to_the_right=seed % 2 == 0)]
    write_frames(made / "long" / "a.mkv", frames)
    write_frames(made / "long" / "b" / "a.mp4", frames[:24])
    (made / "long" / "broken.mp4").write_text("no video")
    return made


def times(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]  # type: ignore[operator]


def test_each_video_gets_a_copy_with_the_same_frames(folder: Path, tmp_path: Path) -> None:
    command = ("predict", folder / "run", folder / "long", "--timeline", "--format", "json", *CPU)
    copied = run(*command, "--write-video", tmp_path / "copies")
    assert copied.exit_code == 3, copied.output
    assert copied.stdout == run(*command).stdout
    copies = {path.relative_to(tmp_path / "copies").as_posix(): path for path in tmp_path.rglob("*.m*")}
    assert sorted(copies) == ["a.mkv.mp4", "b/a.mp4"]
    for name, original in (("a.mkv.mp4", "a.mkv"), ("b/a.mp4", "b/a.mp4")):
        assert times(copies[name]) == pytest.approx(times(folder / "long" / original), abs=1e-3)
    assert f"{tmp_path / 'copies' / 'b' / 'a.mp4'}: annotated copy of b/a.mp4" in copied.stderr


def test_a_copy_that_fails_costs_itself_alone(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_annotated = annotated.write_annotated

    def fail_for_first(video: Path, timeline: object, out: Path) -> None:
        if video.name == "a.mkv":
            raise VidpipeError("disk full")
        write_annotated(video, timeline, out)  # type: ignore[arg-type]

    monkeypatch.setattr(annotated, "write_annotated", fail_for_first)
    inputs = (folder / "long" / "a.mkv", folder / "long" / "b" / "a.mp4")
    command = ("predict", folder / "run", *inputs, "--timeline", "--format", "json", *CPU)
    result = run(*command, "--write-video", tmp_path)
    assert result.exit_code == 3
    assert [json.loads(line)["status"] for line in result.stdout.splitlines()] == ["ok", "ok"]
    assert "failed: annotated copy of a.mkv: disk full" in result.stderr
    assert [path.name for path in tmp_path.rglob("*.*")] == ["a.mp4"]


def test_what_is_in_the_way_is_found_before_the_work(folder: Path, tmp_path: Path) -> None:
    command = ("predict", folder / "run", folder / "long" / "b", "--timeline", *CPU)
    kept = tmp_path / "a.mp4"
    kept.write_text("mine")
    existing = run(*command, "--write-video", tmp_path)
    assert (existing.exit_code, existing.stdout, kept.read_text()) == (2, "", "mine")
    assert f"{kept}: exists; choose another folder for copies, or delete it" in existing.stderr
    no_folder = run(*command, "--write-video", kept)
    assert (no_folder.exit_code, no_folder.stdout) == (2, "")
    assert "copies cannot be written to it" in no_folder.stderr


def test_without_a_timeline_the_copy_shows_the_label_of_the_clip(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    monkeypatch.setattr(annotated, "write_annotated", lambda video, timeline, out: drawn.append(timeline))
    clip = folder / "long" / "b" / "a.mp4"
    result = run("predict", folder / "run", clip, "--write-video", tmp_path, "--format", "json", *CPU)
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    (timeline,) = drawn
    (segment,) = timeline.segments
    assert (segment.label, segment.probability) == (answer["label"], answer["probability"])
    assert (segment.start_seconds, segment.stop_seconds) == pytest.approx((0, times(clip)[-1] + 0.04), abs=1e-6)
