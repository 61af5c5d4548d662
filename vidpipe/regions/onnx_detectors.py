"""Detectors whose network is an ONNX file: MoveNet MultiPose, CenterNet on COCO, and a mask of people.

Each network has its own input and output. A file with another output is refused.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidpipe.backbones.engines.onnx import open_session
from vidpipe.errors import WeightsError
from vidpipe.regions.detections import COCO_IDS, NUM_KEY_POINTS, PERSON, Detections
from vidpipe.regions.masks import detections_of_mask
from vidpipe.video.resize import resize

__all__ = ["ONNX_DETECTORS", "OnnxDetector"]


_LONGER_SIDE = 256


class OnnxDetector(ABC):
    """A network in an ONNX file, on the CPU, one frame at a time.

    Args:
        path: the file.
        name: of the detector, for messages.
        num_threads: that compute; None for one on each core.
        longer_side: pixels of the frames' longer side, where the network takes any; None for 256.

    Raises:
        WeightsError: the file is no network, or another one.
    """

    output_shape: tuple[int, ...]
    """Of the output to read, without its first axis."""

    def __init__(
        self, path: Path, *, name: str, num_threads: int | None = None, longer_side: int | None = None
    ) -> None:
        self.longer_side = longer_side or _LONGER_SIDE
        try:
            self._session = open_session(path, num_threads=num_threads)
        except Exception as error:  # ONNX Runtime's errors have no base of their own
            raise WeightsError(f"{path}: cannot be read as an ONNX network: {str(error).splitlines()[0]}") from error
        (self._input, *others), outputs = self._session.get_inputs(), self._session.get_outputs()
        fitting = [one.name for one in outputs if tuple(one.shape[1:]) == self.output_shape]
        if others or len(self._input.shape) != 4 or len(fitting) != 1:
            found = ", ".join(f"{one.name} {one.shape}" for one in outputs)
            raise WeightsError(
                f"{path}: not the network of {name}: its outputs are {found}, and {name} has one of shape "
                f"{[1, *self.output_shape]}"
            )
        self._output = fitting[0]

    def detect(self, frames: NDArray[np.uint8]) -> tuple[Detections, ...]:
        """See `Detector.detect`."""
        height, width = frames.shape[2:]
        resized = resize(frames.transpose(0, 2, 3, 1), self.input_size(height, width), "bilinear")  # (N, 3, h, w)
        return tuple(self.read(self._run(pixels), height, width) for pixels in resized)

    def _run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(3, h, w) -> the output, without its first axis."""
        dtype = np.int32 if self._input.type == "tensor(int32)" else np.float32
        values = self.scaled(pixels.transpose(1, 2, 0)[None].astype(dtype))  # (1, h, w, 3)
        output: NDArray[np.float32] = self._session.run([self._output], {self._input.name: values})[0][0]
        return output

    def scaled(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Return pixels of 0 to 255 in the range that the network expects."""
        return pixels

    @abstractmethod
    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width to which a frame is resized."""

    @abstractmethod
    def read(self, output: NDArray[np.float32], height: int, width: int) -> Detections:
        """Return what an output says about a frame of this height and width."""


class _MoveNet(OnnxDetector):
    """MoveNet MultiPose: up to 6 people with their key points."""

    output_shape = (6, 3 * NUM_KEY_POINTS + 5)
    multiple = 32

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        scale = self.longer_side / max(height, width) / self.multiple
        return (
            max(1, round(height * scale)) * self.multiple,
            max(1, round(width * scale)) * self.multiple,
        )

    def read(self, output: NDArray[np.float32], height: int, width: int) -> Detections:
        size = np.array([width, height], np.float32)
        points = output[:, : 3 * NUM_KEY_POINTS].reshape(-1, NUM_KEY_POINTS, 3)  # y, x, score
        key_points = np.concatenate([points[..., 1::-1] * size, points[..., 2:]], axis=2)  # x, y, score
        top, left, bottom, right, scores = output[:, 3 * NUM_KEY_POINTS :].T
        boxes = (np.stack([left, top, right, bottom], axis=1) * np.tile(size, 2)).astype(np.float32)
        return Detections(height, width, boxes, scores, np.full(len(scores), PERSON), key_points=key_points)


class _CenterNet(OnnxDetector):
    """CenterNet: up to 100 objects of COCO's 80 classes."""

    output_shape = (100, 6)
    side = 512

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        return self.side, self.side

    def read(self, output: NDArray[np.float32], height: int, width: int) -> Detections:
        scale = np.array([width, height, width, height], np.float32) / np.float32(self.side)
        classes = np.array(COCO_IDS)[output[:, 5].round().astype(np.int64)]
        return Detections(height, width, output[:, :4] * scale, output[:, 4], classes)


class _PersonMask(OnnxDetector):
    """A mask of all people together."""

    output_shape = (256, 256, 1)
    side = 256

    def scaled(self, pixels: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(pixels / np.float32(255))

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        return self.side, self.side

    def read(self, output: NDArray[np.float32], height: int, width: int) -> Detections:
        return detections_of_mask(output[..., 0], height, width)


ONNX_DETECTORS: Mapping[str, type[OnnxDetector]] = {
    "movenet": _MoveNet,
    "centernet": _CenterNet,
    "person_mask": _PersonMask,
}
"""By name of the detector."""
