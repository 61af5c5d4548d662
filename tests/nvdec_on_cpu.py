"""What the reader of `--decoder nvdec` gives where torchcodec decodes on the CPU; run as a process of its own.

torchcodec needs FFmpeg's shared libraries, and the loader looks for them when the process starts. PyAV has them under
other names.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from vidpipe.errors import DecodeError
from vidpipe.video.packets import open_source
from vidpipe.video.reader import open_video
from vidpipe.video.reader_nvdec import NvdecReader


class OnCpu(NvdecReader):
    """The same reader, where torchcodec decodes on the CPU."""

    device = "cpu"


def read(path: Path) -> dict[str, Any]:
    """The frames of a file by torchcodec and by PyAV, compared; or why torchcodec does not read it."""
    expected = open_video(path, methods=("pyav",))
    index = [0, 1, expected.info.num_frames // 2, expected.info.num_frames - 1]
    try:
        reader = OnCpu(open_source(path))
        frames = np.concatenate(list(reader.blocks(index)))
    except DecodeError as error:
        return {"error": str(error)}
    return {
        "decoder": reader.info.decoder,
        "same": bool(np.array_equal(frames, np.concatenate(list(expected.blocks(index))))),
        "same_times": reader.pts_seconds.tolist() == expected.pts_seconds.tolist(),
        "same_keys": reader.find_key_frames(4).tolist() == expected.find_key_frames(4).tolist(),
    }


def read_with_the_decoder_of(path: Path, other: Path) -> str:
    """What the reader of a file says where the GPU gives the frames of another one, of the same size and length."""
    reader, wrong = OnCpu(open_source(path)), OnCpu(open_source(other))
    reader._decoder = wrong._decoder
    try:
        reader._check_first_frame()
    except DecodeError as error:
        return str(error)
    return "nothing"


def run_in_process(folder: Path, paths: list[Path], swapped: tuple[Path, Path]) -> dict[str, Any]:
    """Run this module where torchcodec finds PyAV's libraries: the results by file name, and of the wrong decoder."""
    libraries = link_libraries(folder)
    there = [str(libraries), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(there)}
    command = [sys.executable, "-m", "tests.nvdec_on_cpu", *map(str, (*swapped, *paths))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def link_libraries(folder: Path) -> Path:
    """Links to PyAV's libraries of FFmpeg under the names that torchcodec asks for: `libavcodec.so.62`."""
    import av

    folder.mkdir()
    libraries = Path(av.__file__).parents[1] / "av.libs"
    for path in libraries.glob("lib*.so.*"):
        found = re.fullmatch(r"(lib(?:av|sw)\w+)-\w+\.so\.(\d+).*", path.name)
        (folder / (f"{found[1]}.so.{found[2]}" if found else path.name)).symlink_to(path)
    return folder


if __name__ == "__main__":
    first, second, *rest = map(Path, sys.argv[1:])
    results: dict[str, Any] = {path.name: read(path) for path in rest}
    sys.stdout.write(json.dumps({**results, "wrong decoder": read_with_the_decoder_of(first, second)}))
