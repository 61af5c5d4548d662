"""Networks of Darknet: a .cfg of yolov3, of any width and depth, and random .weights for it.

The layers follow https://github.com/pjreddie/darknet/blob/master/cfg/yolov3.cfg, and the order of the numbers follows
`load_weights` of its parser.c. Nothing here knows vidpipe's network.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["config", "random_numbers", "write_weights"]

HEADER = np.array([0, 2, 0, 32_013_312, 0], "<i4")  # version 0.2.0, and the pictures seen, as int64


def config(
    *, width: float, blocks: Sequence[int], num_classes: int, size: int, anchors: Sequence[tuple[float, float]]
) -> str:
    """The text of a .cfg: yolov3.cfg with fewer channels and blocks."""
    sections = [f"[net]\nwidth={size}\nheight={size}\nchannels=3"]
    routes = []

    def convolution(filters: int, kernel: int, stride: int = 1) -> None:
        sections.append(
            f"[convolutional]\nbatch_normalize=1\nfilters={round(filters * width)}\nsize={kernel}\nstride={stride}\n"
            "pad=1\nactivation=leaky"
        )

    convolution(32, 3)
    for stage, num_blocks in enumerate(blocks):
        convolution(64 * 2**stage, 3, stride=2)
        for _ in range(num_blocks):
            convolution(32 * 2**stage, 1)
            convolution(64 * 2**stage, 3)
            sections.append("[shortcut]\nfrom=-3\nactivation=linear")
        routes.append(len(sections) - 2)  # the index of the stage's last layer; [net] is no layer
    texts = ", ".join(f"{one:g},{other:g}" for one, other in anchors)
    for scale, filters in enumerate((512, 256, 128)):
        if scale:
            sections.append("[route]\nlayers=-4")
            convolution(filters, 1)
            sections.append("[upsample]\nstride=2")
            sections.append(f"[route]\nlayers=-1, {routes[-1 - scale]}")
        for _ in range(3):
            convolution(filters, 1)
            convolution(2 * filters, 3)
        num_outputs = 3 * (5 + num_classes)
        sections.append(f"[convolutional]\nsize=1\nstride=1\npad=1\nfilters={num_outputs}\nactivation=linear")
        mask = ",".join(str(6 - 3 * scale + one) for one in range(3))
        sections.append(f"[yolo]\nmask={mask}\nanchors={texts}\nclasses={num_classes}\nnum=9")
    return "\n\n".join(sections) + "\n"


def random_numbers(text: str, *, seed: int = 0) -> NDArray[np.float32]:
    """Numbers for all layers of a .cfg, of a size that keeps the outputs near 1."""
    random = np.random.RandomState(seed)  # its stream never changes
    channels: list[int] = []
    numbers, before = [np.zeros(0)], 3
    for name, body in re.findall(r"\[(\w+)\]\n([^\[]*)", text)[1:]:
        values = dict(re.findall(r"(\w+) *= *(.*)", body))
        if name == "convolutional":
            filters, taps = int(values["filters"]), before * int(values["size"]) ** 2
            numbers.append(random.normal(0, 0.3, filters))  # bias
            if "batch_normalize" in values:
                numbers.append(random.uniform(0.3, 0.9, filters))  # weight
                numbers.append(random.normal(0, 0.3, filters))  # mean
                numbers.append(random.uniform(0.5, 1.5, filters))  # variance
            numbers.append(random.normal(0, taps**-0.5, filters * taps))
            before = filters
        elif name == "route":
            before = sum(channels[int(one)] for one in values["layers"].split(","))
        elif name == "shortcut":
            assert channels[int(values["from"])] == before
        channels.append(before)
    return np.concatenate(numbers).astype("<f4")


def write_weights(numbers: NDArray[np.float32], path: Path) -> Path:
    """Write a .weights file of version 0.2."""
    path.write_bytes(HEADER.tobytes() + numbers.tobytes())
    return path
