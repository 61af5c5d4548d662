"""Drawn people whose places are known, and a network of the form of CenterNet that finds them by their colour."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from scipy.optimize import linear_sum_assignment

from vidpipe.regions.detections import PERSON, Detections
from vidpipe.regions.linking import Track

HEIGHT, WIDTH, FPS = 120, 160, 25
BACKGROUND, STRIPE = (90, 90, 90), (8, 8, 8)
COLORS = ((250, 10, 10), (10, 250, 10), (10, 10, 250))
"""Of person 0, 1 and 2."""
STEP = 4
"""Of the 512 × 512 pixels, every fourth is looked at."""
Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""


def picture(people: Sequence[tuple[int, Box, bool]]) -> NDArray[np.uint8]:
    """(H, W, 3): each person's number, box and whether their stripe is at the top; later ones are in front."""
    drawn = np.full((HEIGHT, WIDTH, 3), BACKGROUND, np.uint8)
    for number, box, at_top in people:
        left, top, right, bottom = np.round(box).astype(int).tolist()
        drawn[max(top, 0) : bottom, max(left, 0) : right] = COLORS[number]
        third = (bottom - top) // 4
        stripe = (top + 2, top + 2 + third) if at_top else (bottom - 2 - third, bottom - 2)
        drawn[stripe[0] : stripe[1], max(left + 3, 0) : right - 3] = STRIPE
    return drawn


def walk(start: Box, stop: Box, num_frames: int) -> NDArray[np.float64]:
    """(F, 4) boxes of a person who walks at an even speed."""
    return np.linspace(start, stop, num_frames)


def detections(boxes: NDArray[np.floating] | Sequence[Box], scores: Sequence[float] | None = None) -> Detections:
    """What a detector says that finds people in these boxes."""
    found = np.asarray(boxes, np.float32).reshape(-1, 4)
    sure = np.full(len(found), 0.9, np.float32) if scores is None else np.asarray(scores, np.float32)
    return Detections(HEIGHT, WIDTH, found, sure, np.full(len(found), PERSON))


def iou(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    common = float(np.prod((np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])).clip(0)))
    return common / (float(np.prod(one[2:] - one[:2])) + float(np.prod(other[2:] - other[:2])) - common)


def count_switches(truth: NDArray[np.float64], tracks: tuple[Track, ...]) -> int:
    """How often a person (G, P, 4) gets another track, by the rule of CLEAR MOT: a match stays while it overlaps."""
    owner: dict[int, int] = {}
    num_switches = 0
    for place, boxes in enumerate(truth):
        here = {n: one.boxes[place - one.first] for n, one in enumerate(tracks) if one.first <= place < one.stop}
        overlap = {(p, n): iou(box, its) for p, box in enumerate(boxes) for n, its in here.items()}
        matched = {p: n for p, n in owner.items() if overlap.get((p, n), 0) >= 0.5}
        people = [p for p in range(len(boxes)) if p not in matched]
        free = [n for n in here if n not in matched.values()]
        table = np.array([[overlap[p, n] for n in free] for p in people]).reshape(len(people), len(free))
        for row, column in zip(*linear_sum_assignment(-table), strict=True):
            if table[row, column] >= 0.5:
                num_switches += owner.get(people[row], free[column]) != free[column]
                matched[people[row]] = free[column]
        owner |= matched
    return num_switches


def write_colour_detector(path: Path) -> Path:
    """Write a network that finds up to one person of each colour; what it does not see, it does not guess."""
    nodes = [
        helper.make_node("Slice", ["pixels", "first", "stop", "axes", "step"], ["fewer"]),  # (1, 128, 128, 3)
        helper.make_node("MatMul", ["fewer", "contrast"], ["colour"]),
        helper.make_node("Greater", ["colour", "limit"], ["mask"]),
        helper.make_node("Cast", ["mask"], ["ones"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["ones", "axes"], ["area"], keepdims=0),  # (1, 3)
        helper.make_node("Mul", ["area", "share"], ["sure"]),
        helper.make_node("Min", ["sure", "most"], ["score"]),
        helper.make_node("Mul", ["score", "zero"], ["class"]),
    ]
    for side, ramp, reduce, empty in (
        ("left", "x", "ReduceMin", "far"),
        ("top", "y", "ReduceMin", "far"),
        ("right", "x_end", "ReduceMax", "zero"),
        ("bottom", "y_end", "ReduceMax", "zero"),
    ):
        nodes.append(helper.make_node("Where", ["mask", ramp, empty], [f"{side}s"]))
        nodes.append(helper.make_node(reduce, [f"{side}s", "axes"], [side], keepdims=0))
    columns = ["left", "top", "right", "bottom", "score", "class"]
    nodes += [helper.make_node("Unsqueeze", [name, "last"], [f"{name}_column"]) for name in columns]
    nodes.append(helper.make_node("Concat", [f"{name}_column" for name in columns], ["found"], axis=2))  # (1, 3, 6)
    nodes.append(helper.make_node("Pad", ["found", "pads"], ["output"]))
    place = np.arange(0, 512, STEP, dtype=np.float32)
    constants = {
        "first": np.array([0, 0]),
        "stop": np.array([512, 512]),
        "step": np.array([STEP, STEP]),
        "contrast": (1.5 * np.eye(3) - 0.5).astype(np.float32),
        "limit": np.array(100, np.float32),
        "axes": np.array([1, 2]),
        "share": np.array(1 / 90, np.float32),
        "most": np.array(0.9, np.float32),
        "zero": np.array(0, np.float32),
        "far": np.array(512, np.float32),
        "x": place[None, None, :, None],
        "y": place[None, :, None, None],
        "x_end": place[None, None, :, None] + STEP,
        "y_end": place[None, :, None, None] + STEP,
        "last": np.array([2]),
        "pads": np.array([0, 0, 0, 0, 97, 0]),
    }
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1, 512, 512, 3])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 100, 6])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path
