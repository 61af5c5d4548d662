"""Damage is found and dropped, and nothing else is; h5py or NumPy alone read back what was written."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.commands import run
from tests.stores import (
    KEY,
    assert_holds,
    assert_same,
    files_below,
    make_sequence,
    make_store,
    sequences_of,
    stopped_before,
)
from vidpipe.errors import KeyMismatchError, ShardError, StoreError
from vidpipe.features import maintenance
from vidpipe.features.export import export
from vidpipe.features.key import FeatureKey
from vidpipe.features.maintenance import compact, find_damage, merge, repair
from vidpipe.features.store import FeatureStore
from vidpipe.records import VideoFailure, VideoFile


def change_a_feature(shard: Path, video_id: str) -> None:
    with h5py.File(shard, "r+") as file:
        number = file["videos/id"].asstr()[:].tolist().index(video_id)
        file["features"][file["videos/start"][number], 0] += 1


def ids_on_disk(store: FeatureStore) -> list[str]:
    """The ids in all shards, as h5py reads them."""
    found = []
    for path in (store.path / "shards").glob("*.h5"):
        with h5py.File(path) as file:
            found.extend(file["videos/id"].asstr()[:].tolist())
    return sorted(found)


# find_damage and repair


def test_a_store_as_it_was_written_has_no_damage_and_repair_leaves_it_alone(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", sequences_of("abc"))
    before = {name: (store.path / name).read_bytes() for name in files_below(store.path)}
    assert find_damage(store) == []
    assert repair(store) == []
    assert before == {name: (store.path / name).read_bytes() for name in files_below(store.path)}


def test_a_changed_number_is_named_and_dropped_and_can_be_made_again(tmp_path: Path) -> None:
    a, b, c = sequences_of("abc")
    store = make_store(tmp_path / "s", [a, b, c])
    shard = store.shard_paths[0]
    change_a_feature(shard, "b.mp4")
    (damage,) = find_damage(store)
    assert (damage.shard, damage.video_id) == (shard, "b.mp4")
    assert "not what was written" in damage.reason
    assert repair(store) == [damage]
    assert find_damage(store) == []
    assert list(store) == ["a.mp4", "c.mp4"]
    assert_holds(store, [a, c])
    assert_holds(make_store(store.path, [b]), [a, b, c])


@pytest.mark.parametrize("size", [0, 100, 3000, -1])
def test_a_shard_cut_short_is_one_damage_and_the_others_are_still_checked(tmp_path: Path, size: int) -> None:
    make_store(tmp_path / "s", sequences_of("ab"))
    store = make_store(tmp_path / "s", sequences_of("cd"))
    first, second = store.shard_paths
    cut = first.read_bytes()[:size]
    first.write_bytes(cut)
    change_a_feature(second, "c.mp4")
    assert [(one.shard, one.video_id) for one in find_damage(store)] == [(first, None), (second, "c.mp4")]
    assert len(repair(store)) == 2
    assert_holds(store, sequences_of("d"))
    assert (store.path / "quarantine" / first.name).read_bytes() == cut


def test_quarantine_keeps_a_shard_that_comes_back(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", sequences_of("a"))
    bad = store.shard_paths[0]
    for content in ("one", "two"):
        bad.write_text(content)
        repair(store)
    assert sorted(path.read_text() for path in (store.path / "quarantine").glob("*.h5")) == ["one", "two"]


def test_features_that_are_not_finite_are_damage_though_they_are_what_was_written(tmp_path: Path) -> None:
    a, b, c = sequences_of("abc")
    a.features[1, 2], b.features[0, 0] = np.nan, np.inf
    store = make_store(tmp_path / "s", [a, b, c])
    assert [(one.video_id, "not finite" in one.reason) for one in find_damage(store)] == [
        ("a.mp4", True),
        ("b.mp4", True),
    ]
    repair(store)
    assert_holds(store, [c])


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("id", "c.mp4"),
        ("num_frames", 999),
        ("duration_seconds", 39.0),
        ("fps", 24.0),
        ("width", 321),
        ("height", 241),
        ("codec", "h263"),
        ("decoder", "pyav"),
        ("damaged", True),
        ("lost_packets", 1),
        ("size_bytes", 6),
        ("mtime_ns", 9),
        ("checksum", "0" * 64),
    ],
)
def test_a_change_of_a_videos_columns_is_found(tmp_path: Path, column: str, value: object) -> None:
    a, b = sequences_of("ab")
    store = make_store(tmp_path / "s", [a, b])
    with h5py.File(store.shard_paths[0], "r+") as file:
        assert file["videos"][column][0] != value
        file["videos"][column][0] = value
    (damage,) = find_damage(store)
    assert damage.video_id == ("c.mp4" if column == "id" else "a.mp4")
    repair(store)
    assert_holds(store, [b])


def _update_checksum(file: h5py.File) -> None:
    """Give the first video the checksum of its present rows."""
    names = "num_frames duration_seconds fps width height codec decoder damaged lost_packets size_bytes mtime_ns"
    known = [file["videos"][name][0].item() for name in names.split() if name not in ("codec", "decoder")]
    known[5:5] = [file["videos"][name].asstr()[0] for name in ("codec", "decoder")]
    rows = [
        file[name][: file["videos/length"][0]] for name in ("features", "pts_seconds", "frame_index", "scene_index")
    ]
    text = json.dumps([file["videos/id"].asstr()[0], *known, "float32", *rows[0].shape])
    content = text.encode() + b"".join(row.tobytes() for row in rows)
    file["videos/checksum"][0] = hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(("array", "reason"), [("frame_index", "in order"), ("pts_seconds", "pts_seconds")])
def test_frames_and_times_that_go_back_are_damage_though_the_checksum_fits(
    tmp_path: Path, array: str, reason: str
) -> None:
    a, b = sequences_of("ab")
    store = make_store(tmp_path / "s", [a, b])
    with h5py.File(store.shard_paths[0], "r+") as file:
        _update_checksum(file)
        assert find_damage(store) == []
        file[array][1] = file[array][0] - 1
        _update_checksum(file)
    (damage,) = find_damage(store)
    assert damage.video_id == "a.mp4"
    assert reason in damage.reason
    repair(store)
    assert_holds(store, [b])


def test_frames_shown_at_one_time_are_no_damage(tmp_path: Path) -> None:
    (a,) = sequences_of("a")
    a.rows.pts_seconds[1] = a.rows.pts_seconds[0]
    assert find_damage(make_store(tmp_path / "s", [a])) == []


def test_rows_that_two_videos_claim_are_damage_of_both(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", sequences_of("abcd"))
    with h5py.File(store.shard_paths[0], "r+") as file:
        file["videos/length"][1] = 4  # b: rows 3 to 7; c begins at 6
    assert [(one.video_id, "another video's" in one.reason) for one in find_damage(store)] == [
        ("b.mp4", True),
        ("c.mp4", True),
    ]
    repair(store)
    assert_holds(store, sequences_of("ad"))


@pytest.mark.parametrize(("older", "number", "lost", "left"), [("ab", 1, "a", "bc"), ("abc", 0, "b", "ac")])
def test_of_several_shards_one_is_repaired_and_the_newest_of_each_video_stays(
    tmp_path: Path, older: str, number: int, lost: str, left: str
) -> None:
    """The dropped video does not come back in an older version, and the new shard replaces no newer sequence."""
    make_store(tmp_path / "s", sequences_of(older))
    newer = sequences_of("ac", seed=1)
    store = make_store(tmp_path / "s", newer)
    change_a_feature(store.shard_paths[number], f"{lost}.mp4")
    repair(store)
    kept = {one.video_id: one for one in (*sequences_of(older), *newer)}
    assert_holds(store, [kept[f"{name}.mp4"] for name in left])


@pytest.mark.parametrize("tidy", [repair, compact])
def test_a_rewritten_shard_has_the_age_of_the_one_it_replaces_whatever_the_clocks(
    tmp_path: Path, tidy: Callable[[FeatureStore], object]
) -> None:
    make_store(tmp_path / "s", sequences_of("abz"))
    newer = sequences_of("abc", seed=1)
    store = make_store(tmp_path / "s", newer)
    for path, year in zip(store.shard_paths, ("2998", "2999"), strict=True):  # by a machine whose clock is wrong
        path.rename(path.with_name(year + path.name[4:]))
    store.refresh()
    if tidy is repair:
        change_a_feature(store.shard_paths[1], "c.mp4")
        newer.pop()
    tidy(store)
    assert_holds(store, [*newer, *sequences_of("z")])


def test_a_damaged_sequence_that_a_newer_one_replaced_does_not_matter(tmp_path: Path) -> None:
    make_store(tmp_path / "s", sequences_of("ab"))
    newer = sequences_of("a", seed=1)
    store = make_store(tmp_path / "s", newer)
    change_a_feature(store.shard_paths[0], "a.mp4")
    assert [one.video_id for one in repair(store)] == ["a.mp4"]
    assert_holds(store, [*newer, *sequences_of("b")])


@pytest.mark.parametrize(("call", "number"), [("replace", 0), ("unlink", 0), ("unlink", 1)])
def test_repair_may_be_stopped_anywhere(tmp_path: Path, call: str, number: int) -> None:
    make_store(tmp_path / "s", sequences_of("ab"))
    store = make_store(tmp_path / "s", sequences_of("cd"))
    for path, name in zip(store.shard_paths, "bc", strict=True):
        change_a_feature(path, f"{name}.mp4")
    with stopped_before(call, number):
        repair(store)
    reopened = FeatureStore.open(store.path)
    for sequence in sequences_of("ad"):
        assert_same(reopened[sequence.video_id], sequence)
    repair(reopened)
    assert_holds(store, sequences_of("ad"))
    assert ids_on_disk(store) == ["a.mp4", "d.mp4"]


def test_repair_removes_what_crashed_writers_left(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", sequences_of("a"))
    (store.path / "shards" / "20250101T000000.000000-01234567.writing").write_bytes(b"half a shard")
    repair(store)
    assert files_below(store.path) == {"store.json", f"shards/{store.shard_paths[0].name}"}


def test_repair_keeps_the_failures_that_still_count_with_their_time(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", sequences_of("a"))
    with store.writer() as writer:
        for name, message in (("a", "old"), ("b", "first"), ("b", "line\u2028break 🎬"), ("c", "third")):
            writer.fail(VideoFailure(f"{name}.mp4", "DecodeError", message), VideoFile(f"{name}.mp4", tmp_path / name))
    path = store.path / "failures.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n")
    path.write_bytes(path.read_bytes() + '{"video": "cut sh🎬'.encode()[:-2])
    repair(store)
    assert path.read_text(encoding="utf-8") == lines[2] + "\n" + lines[3] + "\n"
    assert [failure.message for failure in store.failures] == ["line\u2028break 🎬", "third"]


def test_a_dropped_video_is_not_reported_as_failed(tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path / "s", KEY)
    with store.writer() as writer:
        writer.fail(VideoFailure("a.mp4", "DecodeTimeoutError", "long ago"), VideoFile("a.mp4", tmp_path / "a.mp4"))
        writer.add(sequences_of("a")[0])
    change_a_feature(store.shard_paths[0], "a.mp4")
    repair(store)
    assert (len(store), store.failures) == (0, ())


# compact


def test_compact_drops_what_was_replaced_and_joins_small_shards(tmp_path: Path) -> None:
    for seed, names in enumerate(("abc", "ad", "b")):
        make_store(tmp_path / "s", sequences_of(names, seed=seed))
    store = FeatureStore.open(tmp_path / "s")
    expected = list(store.sequences())
    before, after = compact(store)
    assert (before.num_shards, before.num_sequences, after.num_shards, after.num_sequences) == (3, 6, 1, 4)
    assert after.size_bytes < before.size_bytes
    assert after.size_bytes == sum(path.stat().st_size for path in store.shard_paths)
    assert ids_on_disk(store) == ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]
    assert_holds(store, expected)


def test_compact_leaves_full_shards_and_a_compact_store_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "MAX_VIDEOS", 4)
    make_store(tmp_path / "s", sequences_of("abcd"))
    full = FeatureStore.open(tmp_path / "s").shard_paths
    for name in "efghi":
        make_store(tmp_path / "s", sequences_of(name))
    store = FeatureStore.open(tmp_path / "s")
    compact(store)
    assert set(full) < set(store.shard_paths)
    assert sorted(len(shard.videos) for shard in store.shards) == [1, 4, 4]
    paths = store.shard_paths
    compact(store)
    assert store.shard_paths == paths
    assert_holds(store, sequences_of("abcdefghi"))


@pytest.mark.parametrize(
    ("call", "number"), [*(("replace", number) for number in range(2)), *(("unlink", number) for number in range(6))]
)
def test_compact_may_be_stopped_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    monkeypatch.setattr(maintenance, "MAX_VIDEOS", 6)
    for seed, names in enumerate(("abc", "ad", "e", "bf", "a", "gh")):
        make_store(tmp_path / "s", sequences_of(names, seed=seed))
    store = FeatureStore.open(tmp_path / "s")
    expected = list(store.sequences())
    with stopped_before(call, number):
        compact(store)
    assert_holds(store, expected)
    compact(FeatureStore.open(store.path))
    assert_holds(store, expected)
    assert ids_on_disk(store) == sorted(sequence.video_id for sequence in expected)


def test_compact_does_not_give_damage_a_new_checksum(tmp_path: Path) -> None:
    make_store(tmp_path / "s", sequences_of("a"))
    store = make_store(tmp_path / "s", sequences_of("b"))
    change_a_feature(store.shard_paths[1], "b.mp4")
    with pytest.raises(ShardError, match=r"b\.mp4: .* `vidpipe store repair"):
        compact(store)
    assert [one.video_id for one in find_damage(store)] == ["b.mp4"]
    repair(store)
    assert_holds(store, sequences_of("a"))


def test_a_full_disk_is_reported_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_store(tmp_path / "s", sequences_of("a"))
    store = make_store(tmp_path / "s", sequences_of("b"))

    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(maintenance, "write_shard", full)
    with pytest.raises(StoreError, match="No space left"):
        compact(store)
    assert_holds(store, sequences_of("ab"))


# merge


def test_merge_copies_the_newest_of_all_videos_and_the_failures(tmp_path: Path) -> None:
    make_store(tmp_path / "one", sequences_of("ab", seed=1))
    one = make_store(tmp_path / "one", sequences_of("a"))
    two = make_store(tmp_path / "two", sequences_of("cd"))
    for store, names, year in ((one, "cx", 2025), (two, "xy", 2026)):
        entries = [
            {"video": f"{name}.mp4", "error": "E", "message": f"{name} {year}", "time": str(year)} for name in names
        ]
        (store.path / "failures.jsonl").write_text("\n".join(map(json.dumps, entries)))
    assert merge([two, one], tmp_path / "deep" / "merged") == 4
    merged = FeatureStore.open(tmp_path / "deep" / "merged")
    assert merged.key == KEY
    assert_holds(merged, [*sequences_of("a"), *sequences_of("b", seed=1), *sequences_of("cd")])
    assert [failure.message for failure in merged.failures] == ["x 2026", "y 2026"]
    assert os.listdir(tmp_path / "deep") == ["merged"]


def test_merge_copies_a_video_once_that_two_stores_hold_alike(tmp_path: Path) -> None:
    stores = [make_store(tmp_path / name, sequences_of(name)) for name in ("ab", "bc")]
    assert merge([*stores, stores[0]], tmp_path / "merged") == 3
    assert ids_on_disk(FeatureStore.open(tmp_path / "merged")) == ["a.mp4", "b.mp4", "c.mp4"]


def test_merge_copies_a_video_once_that_two_machines_extracted_from_copies_of_a_file(tmp_path: Path) -> None:
    (a,) = sequences_of("a")
    copy = replace(a, info=replace(a.info, mtime_ns=9_000))
    stores = [make_store(tmp_path / str(number), [sequence]) for number, sequence in enumerate((a, copy))]
    assert merge(stores, tmp_path / "merged") == 1
    assert_holds(FeatureStore.open(tmp_path / "merged"), [a])


def test_merge_refuses_two_different_sequences_of_one_id(tmp_path: Path) -> None:
    stores = [make_store(tmp_path / str(seed), sequences_of("ab"[seed:] + "c", seed=seed)) for seed in range(2)]
    with pytest.raises(
        StoreError,
        match=r"^2 videos of the same id with different features: b\.mp4 \(.*0; .*1\), c\.mp4 .*--prefix NAME",
    ):
        merge(stores, tmp_path / "merged")
    assert sorted(os.listdir(tmp_path)) == ["0", "1"]


def test_merge_refuses_stores_of_different_settings_and_shows_both(tmp_path: Path) -> None:
    one = make_store(tmp_path / "one", sequences_of("a"))
    two = FeatureStore.create(tmp_path / "two", replace(KEY, pooling="max"))
    with pytest.raises(KeyMismatchError, match=r"two holds .* max pooling; .*one holds .* avg pooling"):
        merge([one, two], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_merge_and_export_write_nothing_of_a_damaged_store(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", sequences_of("ab"))
    change_a_feature(store.shard_paths[0], "b.mp4")
    with pytest.raises(ShardError, match=r"b\.mp4: .*repair"):
        merge([store], tmp_path / "merged")
    for form in ("npy", "h5"):
        with pytest.raises(ShardError, match=r"b\.mp4: .*repair"):
            export(store, tmp_path / "exported", form=form)
    assert os.listdir(tmp_path) == ["s"]


def test_merge_and_export_refuse_a_folder_that_is_not_empty(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", sequences_of("a"))
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").touch()
    for place in (tmp_path / "thesis", tmp_path / "thesis" / "thesis.tex", store.path):
        with pytest.raises(StoreError, match="is not an empty folder"):
            merge([store], place)
        with pytest.raises(StoreError, match="is not an empty folder"):
            export(store, place, form="npy")
    assert files_below(tmp_path / "thesis") == {"thesis.tex"}


def test_verify_of_a_sound_store_prints_one_line(tmp_path: Path) -> None:
    make_store(tmp_path / "s", sequences_of("ab"))
    result = run("store", "verify", tmp_path / "s")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{tmp_path / 's'}: 2 videos in 1 shard, no damage\n"
    result = run("store", "verify", tmp_path / "s", "--format", "json")
    assert (result.exit_code, json.loads(result.stdout)) == (0, {"path": str(tmp_path / "s"), "damage": []})


def test_verify_names_each_damage_and_repair_drops_it(tmp_path: Path) -> None:
    make_store(tmp_path / "s", sequences_of("ab"))
    store = make_store(tmp_path / "s", sequences_of("c"))
    change_a_feature(store.shard_paths[0], "b.mp4")
    store.shard_paths[1].write_text("no shard")
    result = run("store", "verify", tmp_path / "s")
    assert result.exit_code == 3
    first, second = result.stdout.splitlines()
    assert first.startswith(f"{store.shard_paths[0]}: b.mp4: ")
    assert second.startswith(f"{store.shard_paths[1]}: not a whole shard")
    assert f"vidpipe store repair {tmp_path / 's'}" in result.stderr
    result = run("store", "verify", tmp_path / "s", "--format", "json")
    assert result.exit_code == 3
    assert [row["video"] for row in json.loads(result.stdout)["damage"]] == ["b.mp4", None]

    result = run("store", "repair", tmp_path / "s")
    assert result.exit_code == 0, result.output
    assert "2 dropped; the next extract makes them again" in result.stdout
    assert len([line for line in result.stdout.splitlines() if line.startswith("dropped: ")]) == 2
    assert run("store", "verify", tmp_path / "s").exit_code == 0
    assert "nothing is damaged" in run("store", "repair", tmp_path / "s").stdout


def test_no_name_of_a_video_reaches_the_terminal_as_a_command_or_a_line(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", [make_sequence("a\x1b[2J\nall is well.mp4")])
    change_a_feature(store.shard_paths[0], "a\x1b[2J\nall is well.mp4")
    for command in ("verify", "repair"):
        stdout = run("store", command, tmp_path / "s").stdout
        assert "\\x1b[2J\\nall is well.mp4: " in stdout
        assert "\x1b" not in stdout


def test_merge_compact_and_export_as_commands(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        make_store(tmp_path / name, sequences_of(name, seed=seed))
        make_store(tmp_path / name, sequences_of(name))
    result = run("store", "compact", tmp_path / "a")
    assert (result.exit_code, "2 shards, 2 sequences" in result.stdout) == (0, True), result.output
    assert "-> 1 shard, 1 sequence," in result.stdout
    result = run("store", "merge", tmp_path / "a", tmp_path / "b", "-o", tmp_path / "c")
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'c'}: 2 videos of 2 stores\n")
    assert_holds(FeatureStore.open(tmp_path / "c"), sequences_of("ab"))
    result = run("store", "export", tmp_path / "c", "-o", tmp_path / "d")
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'd'}: 2 videos\n")
    assert files_below(tmp_path / "d") == {"a.mp4.npy", "b.mp4.npy", "index.csv"}
    assert run("store", "export", tmp_path / "c", "-o", tmp_path / "e", "--format", "h5").exit_code == 0


def _no_store(folder: Path, key: FeatureKey) -> list[object]:
    return ["verify", folder]


def _another_key(folder: Path, key: FeatureKey) -> list[object]:
    make_store(folder / "a", sequences_of("a"))
    FeatureStore.create(folder / "b", replace(key, backbone="resnet101"))
    return ["merge", folder / "a", folder / "b", "-o", folder / "c"]


def _full_folder(folder: Path, key: FeatureKey) -> list[object]:
    make_store(folder / "a", sequences_of("a"))
    return ["export", folder / "a", "-o", folder]


def _unknown_subcommand(folder: Path, key: FeatureKey) -> list[object]:
    return ["verfy", folder]


@pytest.mark.parametrize(
    ("make", "exit_code", "message"),
    [
        (_no_store, 1, "no feature store"),
        (_another_key, 1, "b holds resnet101 features; "),
        (_full_folder, 1, "is not an empty folder"),
        (_unknown_subcommand, 2, "Did you mean 'verify'?"),
    ],
)
def test_a_mistake_is_one_line_with_an_exit_code(
    tmp_path: Path, make: Callable[[Path, FeatureKey], list[object]], exit_code: int, message: str
) -> None:
    result = run("store", *make(tmp_path, KEY))
    assert result.exit_code == exit_code, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert len([line for line in result.stderr.splitlines() if line.startswith("Error")]) == 1


@pytest.mark.parametrize("arguments", [["--help"], ["verify", "--help"]])
def test_the_help_imports_nothing_heavy(arguments: list[str]) -> None:
    program = f"""
import sys
sys.argv = ["vidpipe", "store", *{arguments!r}]
from vidpipe.cli import main
try:
    main()
finally:
    assert not {{"torch", "numpy", "h5py"}} & set(sys.modules), "a heavy library was imported"
"""
    result = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert "vidpipe store" in result.stdout
