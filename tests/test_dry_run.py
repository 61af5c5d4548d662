"""`vidpipe extract --dry-run`: what would be extracted and what not, and why; nothing is written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.files import make_files
from tests.stores import KEY, make_sequence, make_store
from vidpipe.cli import main
from vidpipe.features.failures import FailureLog
from vidpipe.features.sources import stamp_of
from vidpipe.features.store import FeatureStore
from vidpipe.records import VideoFailure, VideoFile


def dry_run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["extract", *map(str, arguments), "--dry-run"])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    return make_files(
        tmp_path / "videos",
        *("fight/a.mp4", "fight/b.mp4", "fight/old.mp4", "rejected/c.mp4", "notes.txt", "fight/.hidden.mp4"),
        "@eaDir/a.mp4",
    )


def test_a_line_a_file_says_what_would_be_extracted_and_what_not(videos: Path, tmp_path: Path) -> None:
    before = contents(tmp_path)
    result = dry_run(videos, "-o", tmp_path / "features", "--exclude", "rejected/*")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "skip  @eaDir/  (system folder)",
        "skip  fight/.hidden.mp4  (hidden)",
        "take  fight/a.mp4",
        "take  fight/b.mp4",
        "take  fight/old.mp4",
        "skip  notes.txt  (not a video by its name)",
        "skip  rejected/c.mp4  (excluded by 'rejected/*')",
        "would extract 3 videos, skip 4 (1 excluded by 'rejected/*'; 1 hidden; 1 not a video by its name; "
        "1 system folder)",
    ]
    assert contents(tmp_path) == before


def test_what_the_store_holds_and_what_failed_there_is_skipped_as_extract_would(videos: Path, tmp_path: Path) -> None:
    store = make_store(tmp_path / "features", [make_sequence("fight/a.mp4", path=videos / "fight/a.mp4")])
    failed = VideoFile("fight/b.mp4", videos / "fight" / "b.mp4")
    FailureLog(store.path).append(VideoFailure(failed.id, "DecodeError", "no frames"), stamp_of(failed))
    before = contents(tmp_path)

    def reasons(*options: str) -> dict[str, str]:
        result = dry_run(videos, "-o", store.path, *options)
        assert result.exit_code == 0, result.output
        lines = [line.split(maxsplit=2) for line in result.stdout.splitlines()[:-1]]
        return {name: " ".join(reason) for _, name, *reason in lines if "/" in name and name.endswith(".mp4")}

    found = reasons()
    assert found["fight/a.mp4"] == "(stored already)"
    assert found["fight/b.mp4"] == "(failed before; --retry-failed tries it again)"
    assert found["fight/old.mp4"] == ""
    assert reasons("--retry-failed")["fight/b.mp4"] == ""
    assert set(reasons("--force").values()) == {"", "(hidden)"}
    parts = [reasons("--force", "--part", f"{number}/2") for number in (1, 2)]
    for name in ("fight/a.mp4", "fight/b.mp4", "fight/old.mp4", "rejected/c.mp4"):
        assert sorted(part[name] for part in parts)[0] == ""
        assert sorted(part[name] for part in parts)[1].startswith("(not in part ")
    assert contents(tmp_path) == before
    assert FeatureStore.open(store.path).key == KEY


def test_a_store_made_with_other_settings_is_refused_as_extract_would(videos: Path, tmp_path: Path) -> None:
    store = make_store(tmp_path / "features", [make_sequence("a.mp4")])
    result = dry_run(videos, "-o", store.path, "--num-frames", 5)
    assert result.exit_code == 1
    assert "you asked for" in result.stderr


def test_files_that_are_not_there_or_no_files_are_listed_with_the_reason(videos: Path, tmp_path: Path) -> None:
    os.mkfifo(videos / "pipe.mp4")
    (videos / "list.csv").write_text("video\nfight/a.mp4\ngone.mp4\npipe.mp4\nfight\n")
    result = dry_run(videos / "list.csv", "-o", tmp_path / "features")
    assert result.stdout.splitlines()[:-1] == [
        "skip  fight  (not a regular file)",
        "take  fight/a.mp4",
        "skip  gone.mp4  (cannot be read: No such file or directory)",
        "skip  pipe.mp4  (not a regular file)",
    ]


def test_a_folder_without_videos_still_shows_what_is_there(tmp_path: Path) -> None:
    result = dry_run(make_files(tmp_path / "docs", "a.pdf", ".b/c.mp4"), "-o", tmp_path / "features")
    assert result.stdout.splitlines() == ["skip  .b/  (hidden)", "skip  a.pdf  (not a video by its name)"]
    assert result.exit_code == 1
    assert "skipped 1 hidden folder (.b/), searched only if given as INPUT" in result.stderr


def test_an_empty_path_is_refused(tmp_path: Path) -> None:
    for command in (("extract", "", "-o", tmp_path / "s"), ("predict", tmp_path, "")):
        result = CliRunner().invoke(main, [*map(str, command)])
        assert result.exit_code == 2
        assert "the path is empty; is a shell variable not set?" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_any_name_is_printed_on_one_line_and_no_torch_is_loaded(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in (b"caf\xe9.mp4", b"a\nb.mp4", b"\x1b[31m.mp4", "été 🎬.mp4".encode(), b"n\xe9.txt"):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(b"x")
    program = f"""
import sys
sys.argv = ["vidpipe", "extract", {str(folder)!r}, "-o", {str(tmp_path / "features")!r}, "--dry-run"]
from vidpipe.cli import main
try:
    main()
finally:
    assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    lines = done.stdout.decode("utf-8").splitlines()
    assert lines[:-1] == [
        "take  \\x1b[31m.mp4",
        "take  a\\nb.mp4",
        "take  caf\\xe9.mp4",
        "skip  n\\xe9.txt  (not a video by its name)",
        "take  été 🎬.mp4",
    ]
