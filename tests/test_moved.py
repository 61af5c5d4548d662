"""Files of stored videos that are moved, renamed, copied, deleted, or that have the name of another folder's file."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import Result

from tests.commands import run
from tests.media import write_video
from tests.stores import KEY, files_below, make_sequence, make_store, stopped_before
from vidpipe.datasets.store_labels import label_store
from vidpipe.errors import StoreError
from vidpipe.features.inventory import find_gone, find_reusable, reuse_features
from vidpipe.features.maintenance import compact, find_damage, merge, repair
from vidpipe.features.sources import fingerprint_of
from vidpipe.features.store import FeatureStore
from vidpipe.records import VideoFailure, VideoFile, VideoSource
from vidpipe.video.files import find_videos

NAMES = ("run/a.mp4", "run/b.mp4", "walk/c.mp4", "walk/d.mp4")
LENET = ("--backbone", "lenet5", "--device", "cpu", "--engine", "torch", "--workers", 1, "--num-frames", 2)


def extract(store: Path, *arguments: object) -> Result:
    result: Result = run("extract", *arguments, "-o", store, *LENET)
    return result


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `videos/` and their store, `fs/`."""
    folder = tmp_path_factory.mktemp("moved")
    for number, name in enumerate(NAMES):
        write_video(folder / "videos" / name, 3 + number, first_number=100 * number)
    result = extract(folder / "fs", folder / "videos")
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def videos(extracted: Path, tmp_path: Path) -> Path:
    """A folder of videos whose store lies beside it, as if it had been extracted there, in two shards."""
    shutil.copytree(extracted / "videos", tmp_path / "videos")
    origin = FeatureStore.open(extracted / "fs")
    with FeatureStore.create(tmp_path / "fs", origin.key).writer(max_videos=2) as writer:
        for video_id in origin:
            sequence = origin[video_id]
            writer.add(replace(sequence, source=replace(sequence.source, root=str(tmp_path / "videos"))))
    return tmp_path / "videos"


def move(folder: Path, old: str, new: str) -> None:
    (folder / new).parent.mkdir(exist_ok=True)
    (folder / old).rename(folder / new)


def assert_holds(store: Path, origin: Path, names: dict[str, str]) -> None:
    """Whether a store holds, under new names, the features that another holds under the old ones, and no more."""
    opened, expected = FeatureStore.open(store), FeatureStore.open(origin)
    opened.verify()
    assert set(opened) == set(names)
    for new, old in names.items():
        assert np.array_equal(opened[new].features, expected[old].features)
    on_disk = [row.id for shard in opened.shards for row in shard.videos]
    assert sorted(on_disk) == sorted(names)


# what a shard says of its files


def test_a_shard_says_where_its_videos_files_lie_and_h5py_reads_it(extracted: Path) -> None:
    (shard,) = (extracted / "fs/shards").glob("*.h5")
    with h5py.File(shard) as file:
        table = {name: file["videos"][name].asstr()[:].tolist() for name in ("id", "root", "path", "fingerprint")}
    assert table["id"] == table["path"]
    assert sorted(table["id"]) == list(NAMES)
    assert set(table["root"]) == {str(extracted / "videos")}
    for name, fingerprint in zip(table["id"], table["fingerprint"], strict=True):
        content = (extracted / "videos" / name).read_bytes()
        assert fingerprint == sha256(str(len(content)).encode() + content).hexdigest()


def test_a_fingerprint_is_of_blocks_from_the_first_to_the_last(tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(1_000_000)
    (tmp_path / "a").write_bytes(content)
    starts = [(len(content) - 16384) * number // 15 for number in range(16)]
    assert (starts[0], starts[-1] + 16384) == (0, len(content))
    blocks = b"".join(content[start : start + 16384] for start in starts)
    assert fingerprint_of(tmp_path / "a") == sha256(b"1000000" + blocks).hexdigest()
    assert fingerprint_of(tmp_path / "nowhere") == fingerprint_of(tmp_path) == ""
    os.mkfifo(tmp_path / "fifo")
    assert fingerprint_of(tmp_path / "fifo") == ""


@pytest.mark.parametrize("column", ["root", "path", "fingerprint", "source_checksum"])
def test_a_change_of_what_is_known_of_a_file_is_found(videos: Path, column: str) -> None:
    store = FeatureStore.open(videos.parent / "fs")
    with h5py.File(store.shard_paths[0], "r+") as file:
        file["videos"][column][0] = "elsewhere"
    (damage,) = find_damage(store)
    assert damage.video_id == "run/a.mp4"
    repair(store)
    assert list(store) == list(NAMES[1:])


def test_a_store_that_knows_no_files_is_read_checked_and_joined_with_one_that_does(tmp_path: Path) -> None:
    sequence = make_sequence("b.mp4")
    make_store(tmp_path / "s", [make_sequence("a.mp4")])
    store = make_store(tmp_path / "s", [replace(sequence, source=VideoSource("/videos", "b.mp4", "1" * 64))])
    with h5py.File(store.shard_paths[0]) as old, h5py.File(store.shard_paths[1]) as new:
        assert set(new["videos"]) - set(old["videos"]) == {"root", "path", "fingerprint", "source_checksum"}
    compact(store)
    assert len(store.shards) == 1
    store.verify()
    assert store["a.mp4"].source == VideoSource()
    assert store["b.mp4"].source == VideoSource("/videos", "b.mp4", "1" * 64)
    assert merge([store], tmp_path / "merged") == 2
    assert FeatureStore.open(tmp_path / "merged")["b.mp4"].source.root == "/videos"


# the same id, another file


def test_a_second_folders_videos_of_the_same_ids_are_refused_before_anything_is_done(
    extracted: Path, tmp_path: Path
) -> None:
    for name in NAMES[:2]:
        write_video(tmp_path / "col2" / name, 9)
    store = extracted / "fs"
    before = {name: (store / name).read_bytes() for name in files_below(store)}
    for arguments in ((), ("--part", "2/7")):
        result = extract(store, tmp_path / "col2", *arguments)
        assert result.exit_code == 1, result.output
        assert f"2 videos would replace another folder's video of the same id: run/a.mp4 ({extracted}" in result.stderr
        assert f"now {tmp_path}/col2/run/a.mp4" in result.stderr
        assert "`--prefix col2` gives this folder's videos ids of their own (col2/run/a.mp4)" in result.stderr
        assert "--force" in result.stderr
    assert before == {name: (store / name).read_bytes() for name in files_below(store)}


def test_a_prefix_distinguishes_two_folders(videos: Path) -> None:
    store = videos.parent / "fs"
    write_video(videos.parent / "col2/run/a.mp4", 9)
    result = extract(store, videos.parent / "col2", "--prefix", "col2/")
    assert (result.exit_code, "1 video stored (2 frames" in result.stdout) == (0, True), result.output
    assert set(FeatureStore.open(store)) == {*NAMES, "col2/run/a.mp4"}
    again = extract(store, videos.parent / "col2", "--prefix", "col2")
    assert "0 videos stored (0 frames, 0.0 s), 1 were there already" in again.stdout
    (videos / "run/b.mp4").unlink()
    assert find_gone(FeatureStore.open(store), find_videos([videos], prefix="col2")) == []
    assert find_gone(FeatureStore.open(store), find_videos([videos])) == ["run/b.mp4"]


@pytest.mark.parametrize("prefix", ["..", "a/../b", "a//b", "/", "a\nb"])
def test_a_prefix_that_is_no_part_of_a_path_is_refused(videos: Path, prefix: str) -> None:
    result = extract(videos.parent / "fs", videos, "--prefix", prefix)
    assert result.exit_code == 2
    assert "a name, or several with `/` between them" in result.stderr


def test_force_takes_another_folders_videos_for_new_versions(videos: Path) -> None:
    store = videos.parent / "fs"
    write_video(videos.parent / "col2/run/a.mp4", 9)
    result = extract(store, videos.parent / "col2", "--force")
    assert "1 video stored (2 frames, " in result.stdout
    assert "; 1 replacing an older version)" in result.stdout
    opened = FeatureStore.open(store)
    assert (set(opened), opened["run/a.mp4"].source.root) == (set(NAMES), str(videos.parent / "col2"))


def test_a_changed_file_in_its_old_place_is_a_new_version(videos: Path) -> None:
    write_video(videos / "run/a.mp4", 9)
    result = extract(videos.parent / "fs", videos)
    assert "1 video stored (2 frames, " in result.stdout
    assert "; 1 replacing an older version), 3 were there already, 0 failed" in result.stdout
    assert FeatureStore.open(videos.parent / "fs").info("run/a.mp4").num_frames == 9


@pytest.mark.parametrize("spelled", ["videos/", "./videos/../videos", "link"])
def test_a_folder_is_the_same_however_it_is_named(videos: Path, monkeypatch: pytest.MonkeyPatch, spelled: str) -> None:
    monkeypatch.chdir(videos.parent)
    Path("link").symlink_to("videos")
    (videos / "run/a.mp4").unlink()
    result = extract(Path("fs"), spelled)
    assert "3 were there already" in result.stdout
    assert "1 stored video is no longer in" in result.stderr


@pytest.mark.parametrize("keeps_times", [True, False])
def test_a_data_set_that_was_moved_as_a_whole_is_not_extracted_again(videos: Path, keeps_times: bool) -> None:
    store = videos.parent / "fs"
    new = videos.parent / "elsewhere"
    shutil.copytree(videos, new, copy_function=shutil.copy2 if keeps_times else shutil.copyfile)
    shutil.rmtree(videos)
    before = files_below(store)
    result = extract(store, new)
    assert (result.exit_code, "0 videos stored (0 frames, 0.0 s), 4 were there" in result.stdout) == (0, True)
    assert before == files_below(store)
    assert "no longer" not in result.stderr
    (new / "run/a.mp4").unlink()
    move(new, "run/b.mp4", "walk/b.mp4")
    result = extract(store, new)
    assert "1 recognised by content and not extracted again" in result.stdout
    assert "(run/a.mp4)" in result.stderr
    assert set(FeatureStore.open(store)) == {"run/a.mp4", "walk/b.mp4", *NAMES[2:]}


def test_a_changed_file_is_a_new_version_from_whichever_list_it_is_named(videos: Path) -> None:
    store = videos.parent / "fs"
    for name in ("one", "two"):
        (videos.parent / name).mkdir()
        (videos.parent / name / "list.csv").write_text(f"video\n{videos}/run/a.mp4\n")
    assert "1 recognised by content" in extract(store, videos.parent / "one/list.csv").stdout
    write_video(videos / "run/a.mp4", 9)
    assert "1 replacing an older version" in extract(store, videos.parent / "two/list.csv").stdout


def test_merge_names_the_files_of_two_videos_with_one_id(tmp_path: Path) -> None:
    stores = []
    for seed, name in enumerate(("one", "two")):
        source = VideoSource(f"/{name}", "a.mp4", str(seed) * 64)
        stores.append(make_store(tmp_path / name, [replace(make_sequence("a.mp4", seed=seed), source=source)]))
    with pytest.raises(StoreError, match=r"^1 video of the same id .*one from /one/a\.mp4; .*two from /two/a\.mp4"):
        merge(stores, tmp_path / "merged")


# moved files


def test_a_moved_video_keeps_its_features_and_stands_under_its_new_label_alone(videos: Path, extracted: Path) -> None:
    move(videos, "run/a.mp4", "walk/a.mp4")
    result = extract(videos.parent / "fs", videos)
    assert result.exit_code == 0
    assert (
        "0 videos stored (0 frames, 0.0 s), 3 were there already, 1 recognised by content and not extr" in result.stdout
    )
    assert "moved: 1 old id dropped (run/a.mp4)" in result.stderr
    assert_holds(
        videos.parent / "fs", extracted / "fs", {"walk/a.mp4": "run/a.mp4", **{name: name for name in NAMES[1:]}}
    )
    labels = {video.video_id: video.label for video in label_store(FeatureStore.open(videos.parent / "fs"))}
    assert labels == {"walk/a.mp4": "walk", "run/b.mp4": "run", "walk/c.mp4": "walk", "walk/d.mp4": "walk"}
    assert "4 were there already, 0 failed" in extract(videos.parent / "fs", videos).stdout


def test_two_files_that_swap_their_names_swap_their_features(videos: Path, extracted: Path) -> None:
    for old, new in (("run/a.mp4", "run/x.mp4"), ("walk/c.mp4", "run/a.mp4"), ("run/x.mp4", "walk/c.mp4")):
        move(videos, old, new)
    extract(videos.parent / "fs", videos)
    store = FeatureStore.open(videos.parent / "fs")
    compact(store)
    swapped = {"run/a.mp4": "walk/c.mp4", "walk/c.mp4": "run/a.mp4", "run/b.mp4": "run/b.mp4", NAMES[3]: NAMES[3]}
    assert_holds(store.path, extracted / "fs", swapped)


@pytest.mark.parametrize(
    ("call", "number"), [("replace", 0), ("replace", 1), ("replace", 2), ("unlink", 0), ("unlink", 1)]
)
def test_following_moved_files_may_be_stopped_anywhere(
    videos: Path, extracted: Path, call: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vidpipe.features.maintenance.MAX_VIDEOS", 1)
    names = {"run/b.mp4": "run/b.mp4", "walk/a.mp4": "run/a.mp4", "walk/c.mp4": "walk/c.mp4", "run/d.mp4": "walk/d.mp4"}
    for new, old in names.items():
        move(videos, old, new)
    store = videos.parent / "fs"
    with stopped_before(call, number):
        run("extract", videos, "-o", store, *LENET)
    opened, origin = FeatureStore.open(store), FeatureStore.open(extracted / "fs")
    opened.verify()
    for new, old in names.items():
        held = opened[new if new in opened else old].features
        assert np.array_equal(held, origin[old].features)
    assert extract(store, videos).exit_code == 0
    assert_holds(store, extracted / "fs", names)


def test_a_part_only_adds_for_others_may_be_writing(videos: Path) -> None:
    move(videos, "run/a.mp4", "walk/a.mp4")
    store = videos.parent / "fs"
    for part in ("1/2", "2/2"):
        result = extract(store, videos, "--part", part)
        assert result.exit_code == 0
        assert "run/a.mp4" in result.stderr
    assert set(FeatureStore.open(store)) == {*NAMES, "walk/a.mp4"}
    assert "moved: 1 old id dropped" in extract(store, videos).stderr
    assert set(FeatureStore.open(store)) == {*NAMES[1:], "walk/a.mp4"}


def test_a_copy_is_no_moved_file(videos: Path) -> None:
    store = FeatureStore.open(videos.parent / "fs")
    shutil.copyfile(videos / "run/a.mp4", videos / "run/new_time.mp4")
    shutil.copy2(videos / "run/a.mp4", videos / "run/same_time.mp4")
    missing = [video for video in find_videos([videos]) if video.id not in store]
    assert [(one.video_id, one.old_id) for one in reuse_features(store, find_reusable(store, missing))] == [
        ("run/same_time.mp4", "run/a.mp4")
    ]
    assert set(store) == {*NAMES, "run/same_time.mp4"}


def test_a_folder_extracted_after_one_of_its_subfolders_is_reported(videos: Path) -> None:
    store = videos.parent / "fs"
    result = extract(store, videos / "run")
    assert "2 recognised by content and not extracted again" in result.stdout
    assert "warning: 2 files stored under two ids" in result.stderr
    assert "run/a.mp4 and a.mp4" in result.stderr


def test_a_damaged_row_is_not_taken_for_a_moved_file(videos: Path) -> None:
    move(videos, "run/a.mp4", "walk/a.mp4")
    store = FeatureStore.open(videos.parent / "fs")
    with h5py.File(store.shard_paths[0], "r+") as file:
        file["features"][0, 0] += 1
    moved = [video for video in find_videos([videos]) if video.id == "walk/a.mp4"]
    assert len(find_reusable(store, moved)) == 1
    assert reuse_features(store, find_reusable(store, moved)) == []


def forget_files(store: Path) -> None:
    """Make a store as it was before stores noted the files."""
    for path in (store / "shards").glob("*.h5"):
        with h5py.File(path, "r+") as file:
            for name in ("root", "path", "fingerprint", "source_checksum"):
                del file["videos"][name]


def test_a_moved_video_of_an_older_store_is_known_by_its_size_and_time(videos: Path, extracted: Path) -> None:
    forget_files(videos.parent / "fs")
    move(videos, "run/a.mp4", "walk/new.mp4")
    result = extract(videos.parent / "fs", videos)
    assert "3 were there already, 1 recognised by content and not extracted again" in result.stdout
    assert_holds(
        videos.parent / "fs", extracted / "fs", {"walk/new.mp4": "run/a.mp4", **{name: name for name in NAMES[1:]}}
    )


def _whole_seconds_and_another_name(videos: Path) -> None:
    move(videos, "run/a.mp4", "walk/other.mp4")


def _two_files_of_one_time(videos: Path) -> None:
    shutil.copy2(videos / "run/a.mp4", videos / "walk/a.mp4")
    move(videos, "run/a.mp4", "jump/a.mp4")


def _its_own_file_is_there(videos: Path) -> None:
    shutil.copy2(videos / "run/a.mp4", videos / "walk/a.mp4")


@pytest.mark.parametrize("change", [_whole_seconds_and_another_name, _two_files_of_one_time, _its_own_file_is_there])
def test_a_size_and_a_time_that_say_too_little_make_no_moved_file(
    videos: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    path = videos / "run/a.mp4"
    os.utime(path, ns=(0, 1_700_000_000 * 10**9))
    store = make_store(tmp_path / "old", [make_sequence("run/a.mp4", path=path)])
    change(videos)
    missing = [video for video in find_videos([videos]) if video.id not in store]
    assert reuse_features(store, find_reusable(store, missing)) == []


# files that are gone


def test_a_video_that_is_gone_is_reported_kept_left_out_of_training_and_pruned(
    videos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = videos.parent / "fs"
    opened = FeatureStore.open(store)
    broken = videos / "run/broken.mp4"
    broken.write_text("no video")
    with opened.writer() as writer:
        for root in (videos, videos.parent):
            failure = VideoFailure(f"{root.name}-broken.mp4", "NotAVideoError", "no")
            writer.fail(failure, VideoFile(failure.video_id, broken, root))
        writer.add(replace(opened["run/a.mp4"], video_id="x/gone.mp4", source=VideoSource("/elsewhere", "x/gone.mp4")))
        writer.add(replace(opened["run/a.mp4"], video_id="p/run/a.mp4"))
    for path in (broken, videos / "run/a.mp4", videos / "walk/c.mp4"):
        path.unlink()

    result = extract(store, videos)
    assert result.exit_code == 0
    places = f"{videos} (run/a.mp4, walk/c.mp4)"
    assert f"2 stored videos are no longer in {places}; `vidpipe store prune {store} {videos}` drops" in result.stderr
    labels = [video.video_id for video in label_store(FeatureStore.open(store))]
    assert labels == ["run/b.mp4", "walk/d.mp4", "x/gone.mp4"]
    assert "3 videos left out: the file is no longer where" in caplog.text

    before = files_below(store)
    listed = run("store", "prune", store, videos)
    assert listed.stdout.splitlines() == [
        "gone: run/a.mp4",
        "gone: walk/c.mp4",
        "gone: videos-broken.mp4 (failed)",
        f"{store}: 2 videos and 1 failure to drop; --yes drops what is listed",
    ]
    assert before == files_below(store)
    dropped = run("store", "prune", store, videos, "--yes")
    assert f"{store}: 2 videos and 1 failure dropped; 4 videos left" in dropped.stdout
    opened = FeatureStore.open(store)
    opened.verify()
    assert set(opened) == {"p/run/a.mp4", "run/b.mp4", "walk/d.mp4", "x/gone.mp4"}
    assert [failure.video_id for failure in opened.failures] == [f"{videos.parent.name}-broken.mp4"]
    assert "nothing to drop" in run("store", "prune", store, videos, "--yes").stdout
    assert "gone: p/run/a.mp4" in run("store", "prune", store, videos, "--prefix", "p").stdout


def test_prune_is_refused_while_another_process_writes(videos: Path) -> None:
    store = FeatureStore.open(videos.parent / "fs")
    (videos / "run/a.mp4").unlink()
    with store.lock():
        result = run("store", "prune", store.path, videos, "--yes")
    assert (result.exit_code, "another vidpipe is writing" in result.stderr) == (1, True)
    assert len(FeatureStore.open(store.path)) == 4


def test_a_subset_a_part_of_the_folder_or_an_unreadable_one_makes_nothing_gone(videos: Path) -> None:
    store = videos.parent / "fs"
    result = run("extract", videos / "run/a.mp4", videos / "walk/c.mp4", "-o", store, *LENET)
    assert "no longer" not in result.stderr
    (videos / "list.csv").write_text("video\nrun/b.mp4\n")
    assert "no longer" not in extract(store, videos / "list.csv").stderr
    opened = FeatureStore.open(store)
    assert find_gone(opened, find_videos([videos / "walk"])) == []


def _root_is_away(videos: Path) -> None:
    shutil.rmtree(videos)


def _root_is_empty(videos: Path) -> None:
    shutil.rmtree(videos)
    videos.mkdir()


@pytest.mark.parametrize("change", [_root_is_away, _root_is_empty])
def test_a_store_whose_folder_is_elsewhere_is_trained_on_whole(videos: Path, change: Callable[[Path], None]) -> None:
    change(videos)
    assert len(label_store(FeatureStore.open(videos.parent / "fs"))) == 4


def test_a_file_whose_name_is_no_text_is_never_taken_for_gone(tmp_path: Path) -> None:
    name = os.fsdecode(b"run/caf\xe9.mp4")
    path = tmp_path / "videos" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"one")
    (tmp_path / "videos/run/b.mp4").write_bytes(b"two")
    source = VideoSource(str(tmp_path / "videos"), "run/caf\\xe9.mp4")
    sequences = [replace(make_sequence("run/caf\\xe9.mp4", path=path), source=source), make_sequence("run/b.mp4")]
    store = make_store(tmp_path / "s", sequences)
    assert store.key == KEY
    assert {video.video_id for video in label_store(store)} == {"run/caf\\xe9.mp4", "run/b.mp4"}
    assert find_gone(store, find_videos([tmp_path / "videos"])) == []


def test_a_dry_run_foresees_what_is_moved_and_what_is_refused(videos: Path, tmp_path: Path) -> None:
    move(videos, "run/a.mp4", "walk/a.mp4")
    result = extract(tmp_path / "fs", videos, "--dry-run")
    assert "skip  walk/a.mp4  (stored already, as run/a.mp4)" in result.stdout.splitlines()
    assert "would extract 0 videos, skip 4" in result.stdout
    write_video(tmp_path / "other/run/b.mp4", 9)
    result = extract(tmp_path / "fs", tmp_path / "other", "--dry-run")
    assert result.exit_code == 1
    assert "1 video would replace another folder's video of the same id" in result.stderr
