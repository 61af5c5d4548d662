import ctypes
import gc
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.decoding import SMALL, busy_worker, decode
from tests.media import read_number, repeat_video, write_video
from vidpipe.config import Sampling
from vidpipe.records import DecodeProgress, FrameBatch, VideoFailure, VideoFile
from vidpipe.video import decoding, worker
from vidpipe.video.decoding import decode_videos
from vidpipe.video.processes import decoding_context, fork_server
from vidpipe.video.view import View


def whole_videos(batches: list[FrameBatch | VideoFailure]) -> dict[str, NDArray[np.uint8]]:
    """Return the pictures of each video in their places; every place must be filled once."""
    frames: dict[str, dict[int, NDArray[np.uint8]]] = {}
    for batch in batches:
        assert isinstance(batch, FrameBatch), batch
        for offset, frame in enumerate(batch.pictures):
            place = batch.start + offset
            assert place not in frames.setdefault(batch.video.id, {})
            frames[batch.video.id][place] = frame
        num_planned = batch.plan.num_pictures
        assert max(frames[batch.video.id]) < num_planned
    return {video: np.stack([by_place[i] for i in range(len(by_place))]) for video, by_place in frames.items()}


def slow_video(folder: Path, seconds: int = 120) -> Path:
    """Write a video that takes a worker far longer than the other tests' videos: two minutes of 720p."""
    once = write_video(folder / "once.mkv", 25, width=1280, height=720, options={"preset": "ultrafast", "bf": "0"})
    return repeat_video(once, folder / "slow.mkv", seconds)


def test_frames_of_many_videos_are_complete_and_in_their_places(tmp_path: Path) -> None:
    videos = [
        VideoFile(f"{n}.mp4", write_video(tmp_path / f"{n}.mp4", n, width=48, height=48)) for n in (3, 40, 300, 17)
    ]
    frames = whole_videos(decode(videos, Sampling("fps", fps=25), workers=2))
    for video in videos:
        numbers = [read_number(frame.transpose(1, 2, 0)) for frame in frames[video.id]]
        assert numbers == list(range(int(video.path.stem)))


def test_the_pieces_of_one_long_video_are_shared_by_the_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "WORKER_START_SECONDS", 0.0)  # the video counts as long on any machine
    video = VideoFile("a.mp4", write_video(tmp_path / "a.mp4", 128 * 9 + 1, width=48, height=48))
    batches = decode([video], Sampling("fps", fps=25), workers=2)
    numbers = [read_number(frame.transpose(1, 2, 0)) for frame in whole_videos(batches)["a.mp4"]]
    assert numbers == list(range(128 * 9 + 1))
    assert len({batch.worker for batch in batches if isinstance(batch, FrameBatch)}) == 2


@pytest.mark.parametrize(("num_videos", "started"), [(1, 1), (2, 2), (4, 3)])
def test_no_more_processes_start_than_there_are_pieces(num_videos: int, started: int, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 100)
    videos = [VideoFile(f"{number}.mp4", path) for number in range(num_videos)]
    most = 0
    for _ in decode_videos(videos, {"small": View(Sampling("fps", fps=25), SMALL)}, workers=3, timeout_seconds=60):
        most = max(most, len(multiprocessing.active_children()))
    assert most == started


def open_containers() -> int:
    return sum(type(thing) is av.container.InputContainer for thing in gc.get_objects())


@pytest.mark.slow
def test_a_worker_frees_a_video_when_it_opens_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers are in reference cycles: without a collection they would pile up, with FFmpeg's memory for each."""
    view = View(Sampling("uniform", num_frames=3), SMALL)
    monkeypatch.setattr(worker._Worker, "counts", [0], raising=False)
    gc.collect()
    before = open_containers()
    gc.disable()
    try:
        for number in range(5):
            video = VideoFile(f"{number}.mp4", write_video(tmp_path / f"{number}.mp4", 5))
            worker.decode_piece(worker.Piece(video, {"small": view}, ("pyav",)), 0)
            assert open_containers() <= before + 1
    finally:
        gc.enable()
        worker._Worker.close()


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="only glibc gives memory back when asked")
def test_unused_memory_of_the_c_library_is_returned_to_the_system() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]

    def resident_bytes() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    blocks = [libc.malloc(16_000) for _ in range(4000)]
    for block in blocks:
        ctypes.memset(block, 1, 16_000)
    for block in blocks[:-1]:  # the last one keeps the C library from returning the others by itself
        libc.free(block)
    held = resident_bytes()
    worker._trim_native_memory()
    assert held - resident_bytes() > 40_000_000
    libc.free(blocks[-1])


def test_a_bad_video_affects_no_other_video(tmp_path: Path) -> None:
    good = VideoFile("good.mp4", write_video(tmp_path / "good.mp4", 5))
    (tmp_path / "bad.mp4").write_text("no video")
    batches = decode([VideoFile("bad.mp4", tmp_path / "bad.mp4"), good], Sampling("uniform", num_frames=4))
    failures = [batch for batch in batches if isinstance(batch, VideoFailure)]
    assert [(failure.video_id, failure.error) for failure in failures] == [("bad.mp4", "NotAVideoError")]
    assert len(batches) == 2


@pytest.mark.slow
def test_a_decode_that_hangs_is_killed_and_the_others_continue(tmp_path: Path) -> None:
    slow = VideoFile("slow.mkv", slow_video(tmp_path))
    quick = VideoFile("quick.mp4", write_video(tmp_path / "quick.mp4", 3))
    hang = threading.Thread(target=lambda: os.kill(busy_worker(1.0), signal.SIGSTOP))
    hang.start()
    batches = decode([quick, slow, quick], Sampling("scene", num_frames=4), timeout_seconds=3.0)
    hang.join()
    results = sorted(
        (batch.video_id, batch.error) if isinstance(batch, VideoFailure) else (batch.video.id, "") for batch in batches
    )
    assert results == [("quick.mp4", ""), ("quick.mp4", ""), ("slow.mkv", "DecodeTimeoutError")]


@pytest.mark.slow
def test_a_long_decode_that_makes_progress_is_not_stopped(tmp_path: Path) -> None:
    slow = VideoFile("slow.mkv", slow_video(tmp_path, 50))
    started = time.monotonic()
    batches = decode([slow], Sampling("scene", num_frames=4), timeout_seconds=1.5)
    assert time.monotonic() - started > 1.5
    assert {type(batch) for batch in batches} == {FrameBatch}


def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from tests.decoding import SMALL, busy_worker
from vidpipe.config import Sampling
from vidpipe.records import VideoFile
from vidpipe.video.decoding import decode_videos
from vidpipe.video.processes import fork_server
from vidpipe.video.view import View

if __name__ == "__main__":
    videos = [VideoFile("slow.mkv", Path(sys.argv[1]))]
    sampling = Sampling("scene", num_frames=4)
    for _ in decode_videos(videos, {"small": View(sampling, SMALL)}, workers=1, timeout_seconds=60):
        print(busy_worker(0), fork_server(), flush=True)
"""
    script = tmp_path / "main.py"
    script.write_text(program)
    command = [sys.executable, str(script), str(slow_video(tmp_path))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": "."}) as main:
        assert main.stdout is not None
        started = [int(pid) for pid in main.stdout.readline().split()]
        os.kill(started[0], signal.SIGSTOP)  # the worker can do nothing itself
        main.kill()
    for _ in range(100):
        if not (alive := [pid for pid in started if is_alive(pid)]):
            return
        time.sleep(0.1)
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
    raise AssertionError(f"of the worker and the fork server, {alive} outlived the main process")


def is_alive(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_decoder_that_dies_costs_the_video_that_it_was_decoding(tmp_path: Path) -> None:
    slow = VideoFile("slow.mkv", slow_video(tmp_path))
    quick = VideoFile("quick.mp4", write_video(tmp_path / "quick.mp4", 3))

    killer = threading.Thread(target=lambda: os.kill(busy_worker(1.0), signal.SIGKILL))
    killer.start()
    batches = decode([slow, quick], Sampling("scene", num_frames=4))
    killer.join()
    failures = [batch for batch in batches if isinstance(batch, VideoFailure)]
    assert [(failure.video_id, failure.error) for failure in failures] == [("slow.mkv", "DecoderCrashError")]
    assert "SIGKILL" in failures[0].message
    assert len(batches) == 2


def test_an_idle_worker_that_dies_costs_nothing(tmp_path: Path) -> None:
    quick = VideoFile("quick.mp4", write_video(tmp_path / "quick.mp4", 3))
    taken = decode_videos(
        (quick for _ in range(40)), {"small": View(Sampling("fps", fps=25), SMALL)}, workers=1, timeout_seconds=60
    )
    results = (result for result in taken if not isinstance(result, DecodeProgress))
    batches = [next(results)]
    time.sleep(0.5)  # the worker has no work left
    os.kill(busy_worker(0), signal.SIGKILL)
    time.sleep(0.5)
    batches += results
    assert [type(batch) for batch in batches] == [FrameBatch] * 40


def run_script(path: Path, *lines: str) -> "subprocess.CompletedProcess[str]":
    """Run a script that decodes one file, in the lines given."""
    imports = (
        "import os",
        "from pathlib import Path",
        "from tests.decoding import SMALL, decode",
        "from vidpipe.config import Sampling",
        "from vidpipe.records import VideoFile",
    )
    path.write_text("\n".join([*imports, *lines]))
    environment = {**os.environ, "PYTHONPATH": "."}
    return subprocess.run([sys.executable, str(path)], capture_output=True, text=True, env=environment, timeout=250)


DECODE = "decode([VideoFile('a.mp4', Path('a.mp4'))], Sampling('uniform', num_frames=2))"


def test_the_error_in_a_script_without_a_main_guard_says_so(tmp_path: Path) -> None:
    ended = run_script(tmp_path / "script.py", DECODE)
    assert ended.returncode == 1
    message = ended.stderr.splitlines()[-1]
    assert "put what the script does under `if __name__ == '__main__':`" in message
    assert "memory" not in message


def test_the_error_in_a_program_with_a_main_guard_names_memory(tmp_path: Path) -> None:
    lines = ("if __name__ == '__mp_main__':", "    os._exit(1)", "if __name__ == '__main__':", f"    {DECODE}")
    ended = run_script(tmp_path / "script.py", *lines)
    assert ended.returncode == 1
    assert "is there memory left? Fewer --workers need less" in ended.stderr.splitlines()[-1]


def test_the_workers_are_started_without_fork(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_fork() -> int:
        raise AssertionError("forked")

    monkeypatch.setattr(os, "fork", no_fork)
    video = VideoFile("a.mp4", write_video(tmp_path / "a.mp4", 3))
    assert len(decode([video], Sampling("uniform", num_frames=2))) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a fork server")
def test_the_fork_server_has_one_thread_and_its_workers_share_its_memory(tmp_path: Path) -> None:
    server = fork_server()
    video = VideoFile("a.mp4", write_video(tmp_path / "a.mp4", 3))
    batches = decode_videos(
        [video] * 9, {"small": View(Sampling("uniform", num_frames=2), SMALL)}, workers=1, timeout_seconds=60
    )
    next(batches)
    assert len(list(Path(f"/proc/{server}/task").iterdir())) == 1
    memory = Path(f"/proc/{busy_worker(0)}/smaps_rollup").read_text()
    own_kb, all_kb = (int(re.findall(rf"{name}: +(\d+)", memory)[0]) for name in ("Private_Dirty", "Anonymous"))
    assert own_kb < all_kb / 4
    batches.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a fork server")
def test_a_fork_server_that_dies_costs_no_video(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 20)
    taken = decode_videos(
        (VideoFile(f"{number}.mp4", path) for number in range(40)),
        {"small": View(Sampling("fps", fps=25), SMALL)},
        workers=2,
        timeout_seconds=60,
    )
    results = (result for result in taken if not isinstance(result, DecodeProgress))
    batches = [next(results) for _ in range(5)]
    server = fork_server()
    assert server is not None
    os.kill(server, signal.SIGKILL)
    batches += results
    assert sorted(batch.video.id for batch in batches if isinstance(batch, FrameBatch)) == sorted(
        f"{number}.mp4" for number in range(40)
    )


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # it has threads
def test_a_process_that_was_forked_does_not_use_the_fork_server_of_another() -> None:
    fork_server()
    if not (forked := os.fork()):
        os._exit(7 if decoding_context().get_start_method() == "spawn" and fork_server() is None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 7


def test_decoding_runs_only_a_few_videos_ahead(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 20)
    taken: list[int] = []

    def videos() -> Iterator[VideoFile]:
        for number in range(100):
            taken.append(number)
            yield VideoFile(f"{number}.mp4", path)

    batches = decode_videos(
        videos(), {"small": View(Sampling("uniform", num_frames=4), SMALL)}, workers=1, timeout_seconds=60
    )
    next(batches)
    time.sleep(1)
    assert len(taken) <= 4
    batches.close()
