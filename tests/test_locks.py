"""Each part has one writer, here real processes; a process that has ended holds no lock."""

import json
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.commands import run
from tests.stores import KEY, make_sequence, make_store
from vidpipe.errors import StoreError, UsageError
from vidpipe.features.locks import Part
from vidpipe.features.maintenance import compact, repair
from vidpipe.features.store import FeatureStore

HOLD = """
import sys
from vidpipe.features.locks import Part
from vidpipe.features.store import FeatureStore
with FeatureStore.open(sys.argv[1]).lock(Part.parse(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.read()
"""

WITHOUT_FLOCK = """
import ctypes, errno, struct
answer = {"soft": errno.ENOLCK, "switched": errno.ENOSYS}[sys.argv[3]]
number = {"x86_64": 73, "aarch64": 32}[__import__("platform").machine()]
rules = b"".join(struct.pack("HBBI", *rule) for rule in (
    (0x20, 0, 0, 0),  # load the call's number
    (0x15, 0, 1, number),  # flock: the next rule; others: the one after it
    (0x06, 0, 0, 0x00050000 | answer),  # fail with this errno
    (0x06, 0, 0, 0x7FFF0000),  # allow
))
buffer = ctypes.create_string_buffer(rules)
program = struct.pack("HxxxxxxP", 4, ctypes.addressof(buffer))
system = ctypes.CDLL(None, use_errno=True)
assert system.prctl(38, 1, 0, 0, 0) == 0, "no_new_privs"
assert system.prctl(22, 2, ctypes.c_char_p(program), 0, 0) == 0, "seccomp"
""" + HOLD.strip()


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore.create(tmp_path / "s", KEY)


@contextmanager
def held(store: FeatureStore, part: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that writes a part."""
    arguments = [sys.executable, "-c", HOLD, str(store.path), part]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def is_free(store: FeatureStore, part: str) -> bool:
    try:
        with store.lock(Part.parse(part)):
            return True
    except StoreError:
        return False


# parts


def test_each_video_is_in_one_part_of_about_the_same_size() -> None:
    parts = [Part(number, 8) for number in range(1, 9)]
    ids = [f"class/é {number}.mp4" for number in range(4000)]
    holders = [[part for part in parts if part.holds(video_id)] for video_id in ids]
    assert {len(found) for found in holders} == {1}
    assert all(400 < sum(part.holds(video_id) for video_id in ids) < 600 for part in parts)
    assert all(Part(1, 1).holds(video_id) for video_id in ids)


def test_a_video_is_in_the_same_part_on_every_machine() -> None:
    assert [Part(number, 5).holds("a.mp4") for number in range(1, 6)] == [False, False, False, True, False]


def test_a_part_is_written_as_number_and_count() -> None:
    assert Part.parse("3/8") == Part(3, 8)
    assert str(Part(3, 8)) == "3/8"


@pytest.mark.parametrize(
    "text", ["0/8", "9/8", "x", "", "3", "-1/8", "1/0", "3/8/1", "1.0/2", "٣/٨", "1/" + "9" * 9999]
)
def test_what_is_no_part_is_reported_with_the_form(text: str) -> None:
    with pytest.raises(UsageError, match="NUMBER/COUNT"):
        Part.parse(text)


# one writer a part


def test_a_second_writer_is_refused_and_the_message_names_the_first(store: FeatureStore) -> None:
    with held(store, "3/8") as process, pytest.raises(StoreError) as refused, store.lock(Part(3, 8)):
        pass
    message = str(refused.value)
    assert f"another vidpipe is writing part 3/8 of this store (pid {process.pid} on {platform.node()}, " in message
    assert message.endswith("wait for it, stop it, or split the work with --part")


def test_the_second_writer_of_one_process_is_refused_too(store: FeatureStore) -> None:
    with store.lock(), pytest.raises(StoreError, match="is writing all of this store"), store.lock():
        pass
    assert is_free(store, "1/1")


def test_a_killed_writer_blocks_nobody(store: FeatureStore) -> None:
    with held(store, "3/8") as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (store.path / "locks" / "3-of-8.json").exists()
        assert is_free(store, "3/8")


def test_a_writer_that_ends_frees_its_part_and_takes_its_note_along(store: FeatureStore) -> None:
    with held(store, "3/8") as process:
        process.communicate()
        assert is_free(store, "3/8")
        assert not list((store.path / "locks").glob("*.json"))


def test_parts_of_one_count_are_written_side_by_side(store: FeatureStore) -> None:
    with held(store, "1/3"), held(store, "2/3"):
        assert is_free(store, "3/3")


@pytest.mark.parametrize(
    ("first", "second"), [("1/1", "3/8"), ("3/8", "1/1"), ("2/4", "3/8"), ("3/8", "2/4"), ("1/2", "1/4")]
)
def test_parts_that_are_counted_differently_are_refused(store: FeatureStore, first: str, second: str) -> None:
    with held(store, first) as process:
        with pytest.raises(StoreError) as refused, store.lock(Part.parse(second)):
            pass
        for message in (first.replace("1/1", "all of this store"), f"pid {process.pid}", f"part {second}"):
            assert message in str(refused.value)
        assert not is_free(store, first)
    assert is_free(store, second)


def test_writers_that_start_together_do_not_take_one_another_for_older_writers(store: FeatureStore) -> None:
    for part in ("1/1", "1/2", "2/3"):
        assert is_free(store, part)  # leaves lock files of other counts, which each one below tries
    arguments = [sys.executable, "-c", HOLD, str(store.path)]
    processes = [
        subprocess.Popen([*arguments, f"{number}/4"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for number in range(1, 5)
    ]
    try:
        assert [process.stdout.readline() for process in processes if process.stdout] == ["held\n"] * 4
    finally:
        for process in processes:
            process.communicate()


@pytest.mark.parametrize("note", [None, "", "{", "[]", "[" * 9_000, '{"pid": "x", "host": 1, "since": "now"}'])
def test_a_note_that_says_nothing_still_refuses(store: FeatureStore, note: str | None) -> None:
    with held(store, "1/1"):
        path = store.path / "locks" / "1-of-1.json"
        path.unlink() if note is None else path.write_text(note)
        with pytest.raises(StoreError, match="unknown process"), store.lock():
            pass


def test_a_folder_that_cannot_hold_locks_is_reported(store: FeatureStore) -> None:
    (store.path / "locks").write_text("a file")
    with pytest.raises(StoreError, match="cannot be locked for writing"), store.lock():
        pass


def without_flock(store: FeatureStore, kind: str) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-W", "ignore", "-c", "import sys" + WITHOUT_FLOCK, str(store.path), "1/1", kind]
    pipe = subprocess.PIPE
    return subprocess.Popen(arguments, text=True, stdin=pipe, stdout=pipe, stderr=pipe)


@pytest.mark.skipif(
    platform.system() != "Linux" or platform.machine() not in ("x86_64", "aarch64"),
    reason="takes flock away by seccomp",
)
@pytest.mark.parametrize("kind", ["soft", "switched"])
def test_where_there_is_no_flock_a_marker_keeps_others_out_and_goes_with_its_process(
    store: FeatureStore, kind: str
) -> None:
    first, second, third = (without_flock(store, kind) for _ in range(3))
    third.kill()
    third.communicate()
    assert first.stdout is not None
    waiting = [first, second]
    lines = {process: process.stdout.readline() for process in waiting if process.stdout}
    (holder,) = (process for process in waiting if lines[process])
    (refused,) = (process for process in waiting if not lines[process])
    message = refused.communicate()[1]
    assert f"is writing all of this store (pid {holder.pid} on " in message
    assert "If it no longer runs, remove " in message
    holder.kill()
    holder.communicate()
    after = without_flock(store, kind)
    assert after.communicate("") == ("held\n", "")


# repair and compact


def test_repair_and_compact_are_refused_while_a_part_is_written(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", [make_sequence("a.mp4")])
    with held(store, "3/8") as process:
        for tidy in (repair, compact):
            with pytest.raises(StoreError, match=f"pid {process.pid}"):
                tidy(store)
        for command in ("repair", "compact"):
            result = run("store", command, store.path)
            assert (result.exit_code, f"pid {process.pid}" in result.stderr) == (1, True)
        for arguments in (["verify"], ["export", "-o", tmp_path / "e"], ["merge", "-o", tmp_path / "m"]):
            assert run("store", *arguments, store.path).exit_code == 0
    repair(store)
    compact(store)


def test_repair_removes_what_writers_left_in_locks(store: FeatureStore) -> None:
    with held(store, "3/8") as process:
        process.kill()
    repair(store)
    assert {path.name for path in (store.path / "locks").iterdir()} <= {"gate.lock", "1-of-1.lock"}


def test_the_note_of_a_writer_says_who_it_is(store: FeatureStore) -> None:
    with held(store, "3/8") as process:
        note = json.loads((store.path / "locks" / "3-of-8.json").read_text())
    assert (note["part"], note["pid"], note["host"]) == ("3/8", process.pid, platform.node())
