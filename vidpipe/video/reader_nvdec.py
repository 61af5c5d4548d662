"""Decoding on a GPU's video engines (NVDEC) with torchcodec, for `--decoder nvdec`.

The engines round colours differently than a CPU, so the pixels are not the same and the store's key says so. PyAV reads
the packets and the first frame. What torchcodec gives for that frame is compared: a wrong crop or colour matrix is an
error, and PyAV reads the video.

Not measured: no GPU was at hand when this was written. `benchmarks/gpu.py` measures it.
"""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vidpipe.errors import DecodeError, UsageError, count_of
from vidpipe.records import VideoInfo
from vidpipe.video.packets import Source
from vidpipe.video.reader_pyav import PyavReader
from vidpipe.video.steps import STEPS_PER_CHUNK, OnStep, no_step

__all__ = ["NvdecReader", "check_nvdec", "count_engines", "import_torchcodec"]

BLOCK_BYTES = 64 * 2**20
"""Frames are copied from the GPU in blocks of about this size."""
MAX_DIFFERENCE = 6.0
"""Mean absolute difference, of 255, between the first frame by the GPU and by the CPU. Rounding makes less than 1."""
TIME_TOLERANCE_SECONDS = 1e-3
ENGINES = {"H100": 7, "H200": 7, "A100": 5, "A30": 4, "L40": 3, "L4": 4, "A10": 2, "T4": 2, "V100": 1}
"""Decoding engines by a word of the card's name, from the support matrix of NVIDIA's Video Codec SDK."""
DEFAULT_ENGINES = 1


class NvdecReader:
    """Reads a video with torchcodec on a GPU; a `VideoReader`.

    Args:
        source: the open file.
        on_step: called with the number of frames read.

    Raises:
        DecodeError: the GPU cannot decode the file, or gives other frames than the packets state.
    """

    method = "nvdec"
    device: ClassVar[str] = "cuda"

    def __init__(self, source: Source, *, on_step: OnStep = no_step) -> None:
        self.on_step = on_step
        self._pyav = PyavReader(source, on_step=on_step)
        self.pts_seconds, self.end_seconds = self._pyav.pts_seconds, self._pyav.end_seconds
        info = self._pyav.info
        try:
            decoders = import_torchcodec().decoders
            if self.device == "cuda":
                decoders.set_nvdec_cache_capacity(0)  # a cached decoder cropped another height wrongly: torchcodec#1704
            self._decoder = decoders.VideoDecoder(
                str(source.path.absolute()), dimension_order="NHWC", num_ffmpeg_threads=1, device=self.device
            )
        except (RuntimeError, ValueError) as error:
            raise DecodeError(f"torchcodec cannot open it ({_first_line(error)})") from error
        if self._decoder.cpu_fallback:
            raise DecodeError(f"the GPU does not decode it: {self._decoder.cpu_fallback}")
        if len(self._decoder) != info.num_frames:
            raise DecodeError(
                f"torchcodec counts {count_of(len(self._decoder), 'frame')}, the packets {info.num_frames}"
            )
        self._block = max(1, BLOCK_BYTES // (3 * info.width * info.height))
        self.info = VideoInfo.of_file(
            source.path,
            self.pts_seconds,
            self.end_seconds,
            width=info.width,
            height=info.height,
            codec=info.codec,
            decoder="nvdec",
        )
        self._check_first_frame()

    def find_key_frames(self, num_frames: int) -> NDArray[np.int64]:
        """See `VideoReader.find_key_frames`."""
        return self._pyav.find_key_frames(num_frames)

    def blocks(
        self, frame_index: Sequence[int] | NDArray[np.int64], *, keep: bool = False
    ) -> Iterator[NDArray[np.uint8]]:
        """See `VideoReader.blocks`."""
        for start in range(0, len(frame_index), self._block):
            chosen = np.asarray(frame_index[start : start + self._block], np.int64)
            try:
                batch = self._decoder.get_frames_at(chosen.tolist())
                frames: NDArray[np.uint8] = batch.data.cpu().numpy()
            except (RuntimeError, IndexError) as error:
                raise DecodeError(_first_line(error)) from error
            self.on_step(STEPS_PER_CHUNK)
            difference = np.abs(batch.pts_seconds.numpy() - self.pts_seconds[chosen]).max()
            if difference > TIME_TOLERANCE_SECONDS:
                raise DecodeError("torchcodec's frame times are not those of the packets")
            yield frames

    def _check_first_frame(self) -> None:
        """Compare the first frame with the CPU's."""
        (ours,) = next(self.blocks([0]))
        (expected,) = next(self._pyav.blocks([0]))
        if ours.shape != expected.shape:
            raise DecodeError(f"torchcodec gives pictures of {ours.shape[:2]}, not {expected.shape[:2]}")
        difference = float(np.abs(ours.astype(np.int16) - expected).mean())
        if difference > MAX_DIFFERENCE:
            raise DecodeError(f"the GPU's first frame differs from the CPU's by {difference:.1f} of 255 on average")


def import_torchcodec() -> Any:
    """Import torchcodec.

    Returns:
        The package, with its decoders.

    Raises:
        UsageError: it is not installed, or finds no FFmpeg.
    """
    try:
        import torchcodec
        import torchcodec.decoders
    except ImportError as error:
        raise UsageError("--decoder nvdec needs packages: pip install 'vidpipe[nvdec]'") from error
    except (RuntimeError, OSError) as error:
        raise UsageError(
            "--decoder nvdec: torchcodec finds no shared libraries of FFmpeg 4 to 9, or is built for another torch; "
            "install both, or use --decoder pyav"
        ) from error
    return torchcodec


def check_nvdec() -> None:
    """Check that this machine can decode on a GPU.

    Raises:
        UsageError: torchcodec, FFmpeg or a CUDA device is missing.
    """
    import torch

    if not torch.cuda.is_available():
        raise UsageError("--decoder nvdec needs an NVIDIA GPU, and torch finds none; use --decoder pyav")
    import_torchcodec()


def count_engines(card: str) -> int:
    """Return how many videos a card decodes at once; more processes than that slow each other down.

    Args:
        card: its name, as `torch.cuda.get_device_name` gives it.

    Returns:
        The engines of a known card, else 1.
    """
    words = card.upper().replace("-", " ").split()
    return next(
        (count for name, count in ENGINES.items() if any(_is_card(word, name) for word in words)), DEFAULT_ENGINES
    )


def _is_card(word: str, name: str) -> bool:
    """Whether a word of a card's name is a model, or a variant with letters after it: `L40S` is an `L40`."""
    return word == name or (word.startswith(name) and word.removeprefix(name).isalpha())


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0] or type(error).__name__
