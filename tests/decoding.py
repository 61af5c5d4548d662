"""Decodes videos in worker processes, and finds these processes."""

import multiprocessing
import os
import time
from pathlib import Path

from vidpipe.config import Sampling
from vidpipe.records import DecodeProgress, FrameBatch, Preprocessing, VideoFailure, VideoFile
from vidpipe.video.decoding import decode_videos
from vidpipe.video.view import View

SMALL = Preprocessing(resize=32, crop=32, interpolation="bilinear", mean=(0, 0, 0), std=(1, 1, 1))


def decode(
    videos: list[VideoFile], sampling: Sampling, *, workers: int = 1, timeout_seconds: float = 60.0
) -> list[FrameBatch | VideoFailure]:
    results = decode_videos(videos, {"small": View(sampling, SMALL)}, workers=workers, timeout_seconds=timeout_seconds)
    return [result for result in results if not isinstance(result, DecodeProgress)]


def busy_worker(seconds: float) -> int:
    """The id of a decoding process, once it has worked for so long."""
    while True:
        for child in multiprocessing.active_children():
            if child.pid is not None and _cpu_seconds(child.pid) > seconds:
                return child.pid
        time.sleep(0.05)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
