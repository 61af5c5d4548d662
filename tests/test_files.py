import errno
import os
import subprocess
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.files import make_deep, make_files
from vidpipe.errors import InputError, UsageError
from vidpipe.video.files import Skipped, find_videos


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b/two.mp4", "a/one.AVI", "a/deep/er/three.mkv", "sound.wav", "labels.csv", "README", ".hidden.mp4"):
        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path / "videos"


def ids(*inputs: Path) -> list[str]:
    return [video.id for video in find_videos(inputs)]


def test_a_folder_is_searched_to_any_depth_and_gives_ids_relative_to_itself(folder: Path) -> None:
    assert ids(folder) == ["a/deep/er/three.mkv", "a/one.AVI", "b/two.mp4", "sound.wav"]


def test_files_give_ids_relative_to_the_folder_that_holds_them_all(folder: Path) -> None:
    assert ids(folder / "b/two.mp4") == ["two.mp4"]
    assert ids(folder / "b/two.mp4", folder / "a/one.AVI") == ["b/two.mp4", "a/one.AVI"]


def test_videos_come_in_the_order_of_the_inputs(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("video\nvideos/b/two.mp4\nvideos/a/one.AVI\n")
    (tmp_path / "zero.mp4").write_bytes(b"x")
    in_folder = ["deep/er/three.mkv", "one.AVI"]
    in_csv = ["videos/b/two.mp4", "videos/a/one.AVI"]
    assert ids(tmp_path / "zero.mp4", folder / "a", tmp_path / "list.csv") == ["zero.mp4", *in_folder, *in_csv]
    assert ids(tmp_path / "list.csv", folder / "a", tmp_path / "zero.mp4") == [*in_csv, *in_folder, "zero.mp4"]


def test_a_csv_with_a_column_path_gives_ids_and_files(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(f"video,label,path\nb/two.mp4,x,{folder}/b/two.mp4\nc.mp4,x,videos/README\n")
    assert [(video.id, video.path, video.root) for video in find_videos([tmp_path / "labels.csv"])] == [
        ("b/two.mp4", folder / "b/two.mp4", folder),
        ("c.mp4", folder / "README", tmp_path),
    ]


def test_a_file_named_by_the_user_is_taken_whatever_its_suffix(folder: Path) -> None:
    assert ids(folder / "README") == ["README"]


def test_a_csv_gives_the_paths_in_its_column_relative_to_itself(folder: Path) -> None:
    (folder / "list.csv").write_text("label,video\nx,b/two.mp4\ny,./a/one.AVI\nx,b/two.mp4\n")
    videos = find_videos([folder / "list.csv"])
    assert [(video.id, video.path) for video in videos] == [
        ("b/two.mp4", folder / "b/two.mp4"),
        ("a/one.AVI", folder / "a/one.AVI"),
    ]


def test_a_csv_of_ids_and_paths_gives_both(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(
        f"video,label,path\nb/two.mp4,x,{folder}/b/two.mp4\nother.mkv,y,videos/a/one.AVI\n"
    )
    videos = {video.id: video for video in find_videos([tmp_path / "list.csv"])}
    assert (videos["b/two.mp4"].path, videos["b/two.mp4"].root) == (folder / "b/two.mp4", folder)
    assert (videos["other.mkv"].path, videos["other.mkv"].root) == (folder / "a/one.AVI", tmp_path)


def test_the_root_of_an_absolute_path_in_a_csv_is_that_of_its_id(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(f"video\n{folder}/b/two.mp4\n")
    (video,) = find_videos([tmp_path / "list.csv"])
    assert video.root is not None
    assert video.root / video.id == video.path == folder / "b/two.mp4"


def test_a_loop_of_links_is_searched_once(folder: Path) -> None:
    (folder / "a" / "loop").symlink_to(folder)
    (folder / "linked").symlink_to(folder / "b")
    assert ids(folder) == ["a/deep/er/three.mkv", "a/one.AVI", "b/two.mp4", "sound.wav"]


def test_a_name_that_is_no_utf8_gets_an_id_that_is(folder: Path) -> None:
    (Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9 \n\xf0\x9f\x8e\xac.mp4"))).write_bytes(b"x")
    (found,) = [video_id for video_id in ids(folder) if video_id.startswith("caf")]
    assert found.encode("utf-8").decode("utf-8") == "caf\\xe9 \n🎬.mp4"


HIDDEN_FOLDERS = (".cache", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found", "__MACOSX")


@pytest.mark.parametrize("hidden", [*HIDDEN_FOLDERS, ".Trash-1000", "@EADIR"])
def test_a_hidden_folder_is_searched_only_where_it_is_given(
    hidden: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="vidpipe")
    make_files(tmp_path, "a.mp4", f"b/{hidden}/c.mp4", f"b/{hidden}/d/._e.mp4", f"b/{hidden}/d/f.mp4")
    assert ids(tmp_path) == ["a.mp4"]
    assert f"skipped 1 hidden folder (b/{hidden}/)" in caplog.text
    assert ids(tmp_path / "b" / hidden) == ["c.mp4", "d/f.mp4"]


def test_a_link_is_hidden_by_its_own_name(tmp_path: Path) -> None:
    make_files(tmp_path, "videos/a.mp4", "elsewhere/b.mp4", "videos/.store/c.mp4")
    (tmp_path / "videos" / ".linked").symlink_to(tmp_path / "elsewhere")
    assert ids(tmp_path / "videos") == ["a.mp4"]
    (tmp_path / "videos" / "shown").symlink_to(".store")
    assert ids(tmp_path / "videos") == ["a.mp4", "shown/c.mp4"]


EXCLUDABLE = ("a.gif", "b.mp4", "rejected/c.mp4", "x/rejected/d.mp4", "x/rejected/deep/e.mp4", "x/y/f.GIF", "x/[g].gif")


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("*.gif", ["b.mp4", "rejected/c.mp4", "x/rejected/d.mp4", "x/rejected/deep/e.mp4", "x/y/f.GIF"]),
        ("rejected/*", ["a.gif", "b.mp4", "x/[g].gif", "x/rejected/d.mp4", "x/rejected/deep/e.mp4", "x/y/f.GIF"]),
        ("./rejected/", ["a.gif", "b.mp4", "x/[g].gif", "x/rejected/d.mp4", "x/rejected/deep/e.mp4", "x/y/f.GIF"]),
        ("/rejected", ["a.gif", "b.mp4", "x/[g].gif", "x/rejected/d.mp4", "x/rejected/deep/e.mp4", "x/y/f.GIF"]),
        ("rejected", ["a.gif", "b.mp4", "x/[g].gif", "x/y/f.GIF"]),
        ("**/rejected/", ["a.gif", "b.mp4", "x/[g].gif", "x/y/f.GIF"]),
        ("*/rejected", ["a.gif", "b.mp4", "rejected/c.mp4", "x/[g].gif", "x/y/f.GIF"]),
        ("x/*/deep", ["a.gif", "b.mp4", "rejected/c.mp4", "x/[g].gif", "x/rejected/d.mp4", "x/y/f.GIF"]),
        ("x", ["a.gif", "b.mp4", "rejected/c.mp4"]),
        ("[!a-w]", ["a.gif", "b.mp4", "rejected/c.mp4"]),
        (
            "[[]*",
            ["a.gif", "b.mp4", "rejected/c.mp4", "x/rejected/d.mp4", "x/rejected/deep/e.mp4", "x/y/f.GIF"],
        ),
    ],
)
def test_exclude_leaves_out_names_anywhere_and_paths_from_the_input_on(
    pattern: str, left: list[str], tmp_path: Path
) -> None:
    folder = make_files(tmp_path / "videos", *EXCLUDABLE)
    found = find_videos([folder], exclude=[pattern])
    assert [video.id for video in found] == left
    (tmp_path / "list.csv").write_text("video\n" + "\n".join(EXCLUDABLE) + "\n")
    assert sorted(video.id for video in find_videos([tmp_path / "list.csv"], exclude=[pattern])) == left
    files = [folder / name for name in EXCLUDABLE]
    assert sorted(video.id for video in find_videos(files, exclude=[pattern])) == left


def test_an_excluded_folder_is_not_searched(tmp_path: Path) -> None:
    make_files(tmp_path, "a.mp4", "old/b.mp4")
    skipped: list[Skipped] = []
    find_videos([tmp_path], exclude=["old"], on_skipped=skipped.append)
    assert skipped == [Skipped("old/", "excluded by 'old'")]


def test_exclude_matches_both_encodings_of_an_accent(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    make_files(tmp_path, "a.mp4", f"{decomposed}/b.mp4")
    assert [video.id for video in find_videos([tmp_path], exclude=[composed])] == ["a.mp4"]


def test_exclude_that_leaves_nothing_is_an_error_that_says_so(folder: Path) -> None:
    for given in ([folder], [folder / "a", folder / "b"], [folder / "b" / "two.mp4"]):
        with pytest.raises(InputError, match=r"--exclude '\*' leaves no video"):
            find_videos(given, exclude=["*", "unused"])
    with pytest.raises(UsageError, match="not a pattern"):
        find_videos([folder], exclude=["/"])


def test_exclude_that_matches_nothing_is_reported_with_an_example_path(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    find_videos([folder], exclude=["videos/b/*", "b"])
    assert "--exclude 'videos/b/*' matches nothing" in caplog.text
    assert "compared with paths such as 'a/deep/er/three.mkv'" in caplog.text
    assert "'b'" not in caplog.text


def test_each_file_that_is_left_out_is_reported_with_the_reason(folder: Path) -> None:
    make_files(folder, "@eaDir/x.mp4", "b/old.mp4")
    (folder / "b" / "again").symlink_to(folder)
    skipped: list[Skipped] = []
    taken = find_videos([folder], exclude=["old.*"], on_skipped=skipped.append)
    assert {one.name: one.reason for one in skipped} == {
        ".hidden.mp4": "hidden",
        "@eaDir/": "system folder",
        "README": "not a video by its name",
        "labels.csv": "not a video by its name",
        "b/again/": "link to a folder that is searched already",
        "b/old.mp4": "excluded by 'old.*'",
    }
    assert [video.id for video in taken] == ["a/deep/er/three.mkv", "a/one.AVI", "b/two.mp4", "sound.wav"]


@pytest.fixture
def emptied(tmp_path: Path) -> Iterator[Path]:
    """A folder that is emptied afterwards however deep it has become: Python's own way to do that recurses."""
    (tmp_path / "a.mp4").write_bytes(b"x")
    yield tmp_path
    subprocess.run(["rm", "-rf", tmp_path], check=True)


def test_a_folder_deeper_than_the_recursion_limit_is_searched(emptied: Path) -> None:
    make_deep(emptied, "d", 1500)
    emptied.joinpath(*["d"] * 1500, "b.mp4").write_bytes(b"x")
    assert ids(emptied) == ["a.mp4", "d/" * 1500 + "b.mp4"]


def test_a_folder_that_cannot_be_read_is_reported_and_the_others_are_searched(
    emptied: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_deep(emptied, "x" * 250, 20)  # a path takes no more than 4096 bytes
    reported: list[tuple[Path, OSError]] = []
    found = find_videos([emptied], on_unreadable=lambda *one: reported.append(one))
    assert [video.id for video in found] == ["a.mp4"]
    [(unreadable, error)] = reported
    assert (unreadable.name, error.errno) == ("x" * 250, errno.ENAMETOOLONG)
    assert ids(emptied) == ["a.mp4"]
    assert "cannot be read (File name too long)" in caplog.text


def test_links_that_lead_nowhere_are_files_that_can_be_named_as_unreadable(folder: Path) -> None:
    (folder / "b" / "dangling.mp4").symlink_to("nowhere")
    (folder / "b" / "itself.mp4").symlink_to("itself.mp4")
    assert ids(folder / "b") == ["dangling.mp4", "itself.mp4", "two.mp4"]


def test_the_same_video_named_twice_counts_once(folder: Path) -> None:
    assert ids(folder, folder) == ids(folder)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda folder: folder / "nowhere", UsageError, "no such file or folder"),
        (lambda folder: folder / "*.mp4", UsageError, "the shell found no file for this pattern"),
        (lambda folder: _empty_folder(folder), InputError, r"no videos in this folder \(looked for \.mp4, "),
        (lambda folder: _csv(folder, ""), InputError, "empty; the first line of a table names its columns"),
        (lambda folder: _csv(folder, "title,label\na,b\n"), InputError, "missing column 'video'; found: title, label"),
        (lambda folder: _csv(folder, "video,label\n"), InputError, "is empty"),
        (lambda folder: _csv(folder, "video\na\0b.mp4\n"), InputError, "NUL byte"),
        (lambda folder: _csv(folder, "video\n" + "x" * 200_000), InputError, "not a CSV file"),
        (
            lambda folder: _csv(folder, "video\na.mp4\nhttp://host//b.mp4\n"),
            InputError,
            "bad.csv, line 3: http://host//b.mp4: URLs are not read; download the video",
        ),
        (lambda folder: _pipe(folder / "list.csv"), UsageError, "not a regular file"),
        (lambda folder: _link(folder / "list.csv", "/dev/zero"), UsageError, "not a regular file"),
        (lambda folder: _link(folder / "list.csv", "list.csv"), UsageError, "cannot be read"),
        (lambda folder: folder / ("x" * 300), UsageError, "File name too long"),
    ],
)
def test_an_input_without_videos_is_an_error_that_says_why(folder: Path, make, error, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message):
        find_videos([make(folder)])


def test_two_videos_with_one_id_are_refused(folder: Path) -> None:
    (folder / "c").mkdir()
    (folder / "c" / "two.mp4").write_bytes(b"y")
    with pytest.raises(UsageError, match=r"the id 'two\.mp4'"):
        find_videos([folder / "b", folder / "c"])


def _empty_folder(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def _csv(folder: Path, text: str) -> Path:
    (folder / "bad.csv").write_text(text)
    return folder / "bad.csv"


def _pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def _link(path: Path, target: str) -> Path:
    path.symlink_to(target)
    return path
