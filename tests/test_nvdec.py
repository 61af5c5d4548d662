"""`--decoder nvdec`: its logic, with torchcodec on the CPU. `tests/test_gpu.py` has what needs a GPU."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.commands import LENET, run
from tests.media import add_sound, drifting_frames, rotate_mp4, write_frames, write_video
from tests.nvdec_on_cpu import run_in_process
from vidpipe.config import Decoding, ExtractConfig
from vidpipe.errors import UsageError
from vidpipe.video.decoding import choose_decoder
from vidpipe.video.reader import methods_from
from vidpipe.video.reader_nvdec import count_engines


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the reader gives of some files, in a process of its own."""
    if find_spec("torchcodec") is None:
        pytest.skip("torchcodec is not installed")
    if sys.platform != "linux":
        pytest.skip("PyAV's libraries are found by their names on Linux alone")
    folder = tmp_path_factory.mktemp("nvdec")
    frames = list(drifting_frames(30))
    paths = [
        write_frames(folder / "b.mp4", frames, options={"g": "10", "bf": "3"}),
        write_frames(folder / "hevc.mp4", frames, codec="libx265", options={"x265-params": "log-level=none"}),
        write_frames(folder / "vp9.webm", frames, codec="libvpx-vp9", options={"cpu-used": "8"}),
        write_video(folder / "vfr.mp4", 7, pts_ms=[0, 10, 500, 510, 900, 2000, 2040], options={"bf": "0"}),
        rotate_mp4(write_frames(folder / "turned.mp4", frames), 90),
        write_frames(folder / "odd.mp4", list(drifting_frames(20, 130, 94))),
    ]
    paths.append(add_sound(paths[0], folder / "sound.mp4", "aac"))
    dark = write_frames(folder / "dark.mp4", [np.zeros_like(frame) for frame in frames], options={"g": "10"})
    return run_in_process(folder / "libraries", paths, (paths[0], dark))


@pytest.mark.parametrize("name", ["b.mp4", "hevc.mp4", "vp9.webm", "vfr.mp4", "turned.mp4", "odd.mp4", "sound.mp4"])
def test_on_the_cpu_it_gives_the_frames_and_times_of_pyav(found: dict[str, Any], name: str) -> None:
    assert found[name] == {"decoder": "nvdec", "same": True, "same_times": True, "same_keys": True}


def test_a_first_frame_that_is_not_the_cpus_is_an_error(found: dict[str, Any]) -> None:
    assert "the GPU's first frame differs from the CPU's by" in found["wrong decoder"]


def test_where_it_fails_pyav_reads_the_video() -> None:
    assert methods_from("nvdec") == ("nvdec", "pyav", "survey")


def test_the_key_says_that_a_gpu_decoded_and_other_features_are_not_mixed_with_it() -> None:
    assert ExtractConfig(decoder="nvdec").decoding.as_dict() == {"decoder": "nvdec"}
    assert ExtractConfig(decoder="decord").decoding.as_dict() is None
    assert choose_decoder(Decoding(), "decord") == "decord"
    with pytest.raises(UsageError, match="the features were decoded on a CPU; use --decoder pyav"):
        choose_decoder(Decoding(), "nvdec")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_is_refused_before_anything_is_decoded(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 10)
    result = run("extract", tmp_path / "a.mp4", "-o", tmp_path / "s", "--decoder", "nvdec", *LENET)
    assert result.exit_code == 2
    assert "--decoder nvdec needs an NVIDIA GPU, and torch finds none; use --decoder pyav" in result.stderr
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("card", "count"),
    [
        ("NVIDIA H100 80GB HBM3", 7),
        ("NVIDIA H200", 7),
        ("NVIDIA A100-SXM4-40GB", 5),
        ("NVIDIA L40S", 3),
        ("NVIDIA L4", 4),
        ("Tesla T4", 2),
        ("NVIDIA GeForce RTX 4090", 1),
        ("NVIDIA A1000", 1),
    ],
)
def test_as_many_processes_decode_as_the_card_has_engines(card: str, count: int) -> None:
    assert count_engines(card) == count
