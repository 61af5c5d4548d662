"""A figure that moves, and pictures of it: kinematics in numbers, drawing with Pillow; no files, no torch.

An action is a *motion*, which gives the pose at a share `u` of its course, played *forwards* or *backwards*:

    motion           forwards          backwards
    walk             walk_right        walk_left
    squat            squat_down        stand_up
    raise_arms       raise_arms        lower_arms
    wave_and_jump    wave_then_jump    jump_then_wave

So the two actions of a line pass through the same poses in reverse order, and no single picture shows which of the two
it is from. The figure faces the viewer, so its face does not show its direction.

Body coordinates: 1 is the height of the standing figure, x to the right, y up, (0, 0) the ground below its middle.
Scene coordinates: 1 is the height of the frame, x to the right from the middle, y down from the top.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import cos, hypot, pi, radians, sin, sqrt
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vidpipe.errors import UsageError, unknown_name

__all__ = [
    "ACTIONS",
    "Figure",
    "Joints",
    "Scene",
    "draw",
    "draw_mask",
    "place_joints",
    "pose",
    "random_figure",
    "random_scene",
]

Point = tuple[float, float]
Limb = tuple[Point, Point, Point]
Color = tuple[int, int, int]
Choice = TypeVar("Choice")

SUPERSAMPLING = 2
"""Pictures are drawn this many times larger and shrunk, which smooths their edges."""


# Kinematics

THIGH = SHIN = 0.25
UPPER_ARM = FOREARM = 0.18
HIP_X, SHOULDER_X = 0.055, 0.115
STANDING_HIP_Y, HIP_TO_SHOULDER, SHOULDER_TO_HEAD = 0.495, 0.29, 0.125
STANCE_X = 0.085
SQUAT_DEPTH, JUMP_HEIGHT, STEP_LENGTH = 0.25, 0.2, 0.15
NUM_STEPS = 3
ARM_DOWN_DEGREES, ARM_UP_DEGREES, ARM_WAVING_DEGREES = 12.0, 158.0, 145.0


@dataclass(frozen=True)
class Joints:
    """The places of a figure's joints, in body coordinates; the first limb of a pair is the left one in the picture."""

    head: Point
    arms: tuple[Limb, Limb]
    """Shoulder, elbow, hand of each."""
    legs: tuple[Limb, Limb]
    """Hip, knee, foot of each."""
    along: float
    """The place of the figure on the scene's path: 0 at the left end, 1 at the right end."""


def _walk(u: float) -> Joints:
    """From the left end of the path to the right."""
    stride = STEP_LENGTH * sin(2 * pi * NUM_STEPS * u)
    return _body(feet=((-stride, 0.0), (stride, 0.0)), arm_degrees=(ARM_DOWN_DEGREES + 60 * abs(stride),) * 2, along=u)


def _squat(u: float) -> Joints:
    """From standing to a squat, arms outwards for balance."""
    return _squatting(_eased(u))


def _raise_arms(u: float) -> Joints:
    """From arms that hang to arms above the head."""
    return _body(arm_degrees=(ARM_DOWN_DEGREES + (ARM_UP_DEGREES - ARM_DOWN_DEGREES) * _eased(u),) * 2)


def _wave_and_jump(u: float) -> Joints:
    """An arm that waves and comes down in the first half, a jump in the second."""
    return _waving(2 * u) if u < 0.5 else _jumping(2 * u - 1)


def _waving(share: float) -> Joints:
    """One arm up and waving, `share` of it over; it comes down in the last third."""
    lift, swing = _eased(min(1.0, 3 * (1 - share))), 25 * sin(6 * pi * share)
    raised_degrees = (ARM_WAVING_DEGREES - ARM_DOWN_DEGREES + swing) * lift
    return _body(arm_degrees=(ARM_DOWN_DEGREES, ARM_DOWN_DEGREES + raised_degrees))


def _jumping(share: float) -> Joints:
    """One jump, `share` of it over: a dip, a flight that is a parabola, a dip."""
    flight = max(0.0, 1 - ((share - 0.5) / 0.3) ** 2)  # 0 at take-off and landing, 1 at the top
    dip = 0.5 * sin(pi * min(share, 1 - share) / 0.2) ** 2 if abs(share - 0.5) > 0.3 else 0.0
    feet_y, spread = JUMP_HEIGHT * flight, STANCE_X * (1 + 0.7 * flight)
    return _body(
        hip_y=STANDING_HIP_Y + feet_y - SQUAT_DEPTH * dip,
        feet=((-spread, feet_y), (spread, feet_y)),
        arm_degrees=(ARM_DOWN_DEGREES + 50 * flight,) * 2,
    )


def _squatting(depth: float) -> Joints:
    """A squat, `depth` in [0, 1]."""
    return _body(hip_y=STANDING_HIP_Y - SQUAT_DEPTH * depth, arm_degrees=(ARM_DOWN_DEGREES + 70 * depth,) * 2)


def _eased(u: float) -> float:
    """`u` in [0, 1], slow at both ends; `_eased(1 - u) == 1 - _eased(u)`."""
    return (1 - cos(pi * u)) / 2


def _body(
    *,
    hip_y: float = STANDING_HIP_Y,
    feet: tuple[Point, Point] = ((-STANCE_X, 0.0), (STANCE_X, 0.0)),
    arm_degrees: tuple[float, float] = (ARM_DOWN_DEGREES, ARM_DOWN_DEGREES),
    along: float = 0.5,
) -> Joints:
    shoulder_y = hip_y + HIP_TO_SHOULDER
    return Joints(
        head=(0.0, shoulder_y + SHOULDER_TO_HEAD),
        arms=(_arm(-1, shoulder_y, arm_degrees[0]), _arm(1, shoulder_y, arm_degrees[1])),
        legs=(_leg((-HIP_X, hip_y), feet[0], -1), _leg((HIP_X, hip_y), feet[1], 1)),
        along=along,
    )


def _arm(side: int, shoulder_y: float, degrees: float) -> Limb:
    """An arm raised by `degrees`: 0 hangs down, 90 points outwards, 180 points up."""
    upper, lower = radians(degrees), radians(degrees * 1.08)
    elbow = (SHOULDER_X + UPPER_ARM * sin(upper), shoulder_y - UPPER_ARM * cos(upper))
    hand = (elbow[0] + FOREARM * sin(lower), elbow[1] - FOREARM * cos(lower))
    return ((side * SHOULDER_X, shoulder_y), (side * elbow[0], elbow[1]), (side * hand[0], hand[1]))


def _leg(hip: Point, foot: Point, side: int) -> Limb:
    """A leg between a hip and a foot, with the knee bent outwards so that the bones keep their length."""
    across, up = hip[0] - foot[0], hip[1] - foot[1]
    distance = hypot(across, up)
    bend = sqrt(max(0.0, THIGH * SHIN - (distance / 2) ** 2))
    middle = ((hip[0] + foot[0]) / 2, (hip[1] + foot[1]) / 2)
    return hip, (middle[0] + side * bend * up / distance, middle[1] - side * bend * across / distance), foot


def _forwards(time: float) -> float:
    """0 to 1."""
    return time


def _backwards(time: float) -> float:
    """1 to 0."""
    return 1 - time


Motion = Callable[[float], Joints]
Timing = Callable[[float], float]

ACTIONS: Mapping[str, tuple[Motion, Timing]] = {
    "walk_right": (_walk, _forwards),
    "walk_left": (_walk, _backwards),
    "squat_down": (_squat, _forwards),
    "stand_up": (_squat, _backwards),
    "raise_arms": (_raise_arms, _forwards),
    "lower_arms": (_raise_arms, _backwards),
    "wave_then_jump": (_wave_and_jump, _forwards),
    "jump_then_wave": (_wave_and_jump, _backwards),
}


def pose(action: str, phase: float) -> Joints:
    """Compute the pose of a figure at a moment of an action.

    Args:
        action: a key of `ACTIONS`.
        phase: the moment, in [0, 1]: 0 at the first frame, 1 at the last.

    Returns:
        The joints.

    Raises:
        UsageError: there is no such action.
    """
    if action not in ACTIONS:
        raise UsageError(unknown_name("action", action, ACTIONS))
    motion, timing = ACTIONS[action]
    return motion(round(timing(phase), 9))  # rounded, so that both directions give exactly the same pictures


# Looks


@dataclass(frozen=True)
class Figure:
    """The looks of a figure."""

    height: float
    """Of the standing figure, in scene coordinates."""
    thickness: float
    """Of its limbs: 1 is slender, 1.4 is stout."""
    skin: Color
    hair: Color
    shirt: Color
    trousers: Color
    shoes: Color
    long_sleeves: bool


@dataclass(frozen=True)
class Scene:
    """The surroundings of the figure, in pictures of `SUPERSAMPLING` times the frame's size."""

    behind: Image.Image
    """(H, W) RGB, without the figure."""
    before: Image.Image
    """(H, W) RGBA, objects in front of the figure."""
    left_end: Point
    """Of the path, on the ground, in scene coordinates."""
    right_end: Point


HEAD_RADIUS = 0.082
EYE_X, EYE_Y = 0.36, 0.08
"""From the middle of the head, as shares of its radius."""
SKINS: tuple[Color, ...] = ((255, 219, 188), (241, 194, 150), (205, 148, 102), (150, 98, 66), (101, 66, 46))
HAIRS: tuple[Color, ...] = ((40, 30, 28), (88, 56, 36), (150, 96, 48), (222, 180, 96), (168, 68, 40), (150, 150, 154))
SHIRTS: tuple[Color, ...] = (
    (214, 64, 60), (240, 140, 50), (246, 200, 70), (34, 132, 150), (58, 92, 190), (132, 74, 168), (236, 236, 230),
    (226, 110, 150),
)  # fmt: skip
TROUSERS: tuple[Color, ...] = ((44, 58, 96), (60, 60, 66), (112, 84, 60), (70, 100, 140), (92, 50, 60), (40, 76, 72))
SHOES: tuple[Color, ...] = ((30, 30, 34), (240, 240, 240), (150, 50, 44), (96, 62, 38))
SKIES: tuple[tuple[Color, Color], ...] = (
    ((96, 170, 226), (214, 236, 246)), ((126, 190, 220), (246, 236, 210)), ((240, 160, 120), (250, 220, 170)),
    ((120, 140, 190), (226, 206, 216)), ((150, 190, 200), (230, 236, 232)),
)  # fmt: skip
LAWNS: tuple[Color, ...] = ((132, 178, 96), (110, 160, 92), (168, 180, 100), (206, 190, 140))
WALLS: tuple[Color, ...] = ((236, 216, 180), (224, 168, 140), (240, 236, 228), (190, 120, 96), (178, 196, 206))
ROOFS: tuple[Color, ...] = ((164, 72, 54), (110, 64, 58), (80, 88, 104), (180, 100, 60))
PAPERS: tuple[Color, ...] = ((226, 214, 192), (190, 208, 200), (206, 196, 216), (232, 200, 186), (186, 202, 222))
FLOORS: tuple[Color, ...] = ((176, 132, 92), (146, 104, 74), (200, 166, 126), (150, 146, 142))
WOODS: tuple[Color, ...] = ((130, 88, 56), (100, 68, 50), (160, 116, 76), (214, 206, 196))


def random_figure(rng: np.random.Generator) -> Figure:
    """Return a figure of random size, build and clothes."""
    return Figure(
        height=float(rng.uniform(0.63, 0.70)),
        thickness=float(rng.uniform(1.0, 1.35)),
        skin=_one_of(SKINS, rng),
        hair=_one_of(HAIRS, rng),
        shirt=_one_of(SHIRTS, rng),
        trousers=_one_of(TROUSERS, rng),
        shoes=_one_of(SHOES, rng),
        long_sleeves=bool(rng.random() < 0.5),
    )


def random_scene(width: int, height: int, rng: np.random.Generator, *, indoors: bool) -> Scene:
    """Draw a room or a garden at random: something tall and square at the left, something green at the right.

    Args:
        width: of a frame, in pixels.
        height: of a frame, in pixels.
        rng: the source of places, colours and patterns.
        indoors: whether it is a room, with a wardrobe and a plant, or a garden, with a house, a tree and a bush.

    Returns:
        The scene.
    """
    size = (width * SUPERSAMPLING, height * SUPERSAMPLING)
    behind, before = _Canvas.filled(size, "RGB"), _Canvas.filled(size, "RGBA")
    ground_y = float(rng.uniform(0.88, 0.92))
    paint = _paint_room if indoors else _paint_garden
    paint(behind, before, ground_y, rng)
    middle, reach = float(rng.uniform(-0.03, 0.03)), float(rng.uniform(0.27, 0.31))
    return Scene(behind.image, before.image, (middle - reach, ground_y), (middle + reach, ground_y))


def draw(figure: Figure, scene: Scene, joints: Joints) -> Image.Image:
    """Draw the figure in the scene, as (H, W) RGB."""
    canvas = _Canvas(scene.behind.copy())
    _paint_shadow(canvas, figure, scene, joints)
    _paint_figure(canvas, figure, scene, joints)
    canvas.image.paste(scene.before, mask=scene.before)
    return canvas.image.reduce(SUPERSAMPLING)


def draw_mask(figure: Figure, scene: Scene, joints: Joints) -> NDArray[np.bool_]:
    """Return the pixels of the figure in `draw`'s picture, (H, W).

    They are those that it covers by half or more, without its shadow, and without what is hidden by objects before it.
    """
    canvas = _Canvas.filled(scene.behind.size, "RGBA")
    _paint_figure(canvas, figure, scene, joints)
    canvas.image.paste((0, 0, 0, 0), mask=scene.before)
    return np.asarray(canvas.image.getchannel("A").reduce(SUPERSAMPLING)) >= 128


def place_joints(figure: Figure, scene: Scene, joints: Joints) -> Mapping[str, Point]:
    """Return where the joints and the eyes are in `draw`'s picture.

    Returns:
        x and y in pixels, by COCO's names. The figure faces the viewer, so its left side is at the right.
    """
    at = _placing(figure, scene, joints)
    x, y = at(joints.head)
    radius = HEAD_RADIUS * figure.height
    places = {}
    for side, name in ((-1, "right"), (1, "left")):
        limbs = (joints.arms[side > 0], joints.legs[side > 0])
        parts = ("shoulder", "elbow", "wrist"), ("hip", "knee", "ankle")
        places[f"{name}_eye"] = (x + side * radius * EYE_X, y + radius * EYE_Y)
        for limb, names in zip(limbs, parts, strict=True):
            places |= {f"{name}_{part}": at(point) for part, point in zip(names, limb, strict=True)}
    width, height = (length / SUPERSAMPLING for length in scene.behind.size)
    return {name: (x * height + width / 2, y * height) for name, (x, y) in places.items()}


class _Canvas:
    """A picture to paint on in scene coordinates."""

    def __init__(self, image: Image.Image) -> None:
        self.image = image
        self._ink = ImageDraw.Draw(image, "RGBA")
        self.half_width = image.width / image.height / 2

    @classmethod
    def filled(cls, size: tuple[int, int], mode: str) -> "_Canvas":
        return cls(Image.new(mode, size))

    def _pixel(self, point: Point) -> Point:
        return ((point[0] + self.half_width) * self.image.height, point[1] * self.image.height)

    def disc(self, middle: Point, radius: float, color: tuple[int, ...], *, flatness: float = 1.0) -> None:
        x, y = self._pixel(middle)
        r = radius * self.image.height
        self._ink.ellipse((x - r, y - r * flatness, x + r, y + r * flatness), fill=color)

    def box(self, top_left: Point, bottom_right: Point, color: tuple[int, ...], *, rounding: float = 0.0) -> None:
        corners = (*self._pixel(top_left), *self._pixel(bottom_right))
        self._ink.rounded_rectangle(corners, rounding * self.image.height, fill=color)

    def polygon(self, points: tuple[Point, ...], color: tuple[int, ...]) -> None:
        self._ink.polygon([self._pixel(point) for point in points], fill=color)

    def stroke(self, points: tuple[Point, ...], width: float, color: tuple[int, ...]) -> None:
        """A thick line with round ends and joints."""
        pixels = [self._pixel(point) for point in points]
        self._ink.line(pixels, fill=color, width=round(width * self.image.height))
        for point in points:
            self.disc(point, width / 2, color)

    def vertical_gradient(self, top: Color, bottom: Color, *, to_y: float) -> None:
        height = round(to_y * self.image.height)
        share = np.linspace(0, 1, height)[:, None, None]  # (H, 1, 1)
        rows = np.asarray(top) * (1 - share) + np.asarray(bottom) * share  # (H, 1, 3)
        pixels = np.broadcast_to(rows, (height, self.image.width, 3)).astype(np.uint8)
        self.image.paste(Image.fromarray(pixels), (0, 0))


def _placing(figure: Figure, scene: Scene, joints: Joints) -> Callable[[Point], Point]:
    """A function from body coordinates to scene coordinates."""
    ground = _between(scene.left_end, scene.right_end, joints.along)
    return lambda point: (ground[0] + point[0] * figure.height, ground[1] - point[1] * figure.height)


def _paint_shadow(canvas: _Canvas, figure: Figure, scene: Scene, joints: Joints) -> None:
    ground = _between(scene.left_end, scene.right_end, joints.along)
    lowest = min(leg[2][1] for leg in joints.legs)
    canvas.disc((ground[0], ground[1] + 0.005), figure.height * (0.19 - 0.2 * lowest), (0, 0, 0, 70), flatness=0.22)


def _paint_figure(canvas: _Canvas, figure: Figure, scene: Scene, joints: Joints) -> None:
    at, limb = _placing(figure, scene, joints), 0.062 * figure.thickness * figure.height
    for hip, knee, foot in joints.legs:
        canvas.stroke((at(hip), at(knee), at(foot)), limb * 1.15, figure.trousers)
        canvas.disc(at((foot[0] * 1.06, foot[1])), limb * 0.85, figure.shoes, flatness=0.72)
    (left_hip, *_), (right_hip, *_) = joints.legs
    (left_shoulder, *_), (right_shoulder, *_) = joints.arms
    trunk = (at(left_shoulder), at(right_shoulder), at(right_hip), at(left_hip), at(left_shoulder))
    canvas.stroke((at((0, left_shoulder[1])), at(joints.head)), limb * 0.9, _shade(figure.skin, 0.88))
    canvas.polygon(trunk, figure.shirt)
    canvas.stroke(trunk, limb * 1.1, figure.shirt)
    canvas.stroke((at(left_hip), at(right_hip)), limb * 1.15, figure.trousers)
    for shoulder, elbow, hand in joints.arms:
        canvas.stroke((at(elbow), at(hand)), limb * 0.85, figure.shirt if figure.long_sleeves else figure.skin)
        canvas.disc(at(hand), limb * 0.55, figure.skin)
        canvas.stroke((at(shoulder), at(elbow)), limb, _shade(figure.shirt, 0.9))
    _paint_head(canvas, figure, at(joints.head))


def _paint_head(canvas: _Canvas, figure: Figure, middle: Point) -> None:
    x, y = middle
    radius = HEAD_RADIUS * figure.height
    canvas.disc((x, y - radius * 0.18), radius * 1.1, figure.hair)
    canvas.disc((x, y + radius * 0.12), radius * 0.92, figure.skin)
    for side in (-1, 1):
        canvas.disc((x + side * radius * EYE_X, y + radius * EYE_Y), radius * 0.12, (40, 32, 32))
    corners, dip = [(x + side * radius * 0.28, y + radius * 0.42) for side in (-1, 1)], (x, y + radius * 0.56)
    canvas.stroke((corners[0], dip, corners[1]), radius * 0.12, (170, 60, 60))


def _paint_garden(behind: _Canvas, before: _Canvas, ground_y: float, rng: np.random.Generator) -> None:
    """A sky with a sun or clouds, hills, a lawn; a house at the left; a tree and a bush at the right."""
    half, horizon_y = behind.half_width, ground_y - float(rng.uniform(0.16, 0.26))
    behind.vertical_gradient(*_one_of(SKIES, rng), to_y=1.0)
    _paint_sun_and_clouds(behind, rng)
    lawn = _jittered(_one_of(LAWNS, rng), rng)
    for _ in range(3):
        x, radius = float(rng.uniform(-half, half)), float(rng.uniform(0.3, 0.6))
        haze = _mixed(lawn, (150, 180, 200), rng.uniform(0.3, 0.6))
        behind.disc((x, horizon_y + radius * 0.12), radius, haze, flatness=0.32)
    behind.box((-half, horizon_y), (half, 1.0), lawn)
    for _ in range(150):
        x, y = float(rng.uniform(-half, half)), float(rng.uniform(horizon_y, 1.0))
        behind.stroke(((x, y), (x + 0.006, y - 0.018)), 0.005, _shade(lawn, rng.uniform(0.82, 1.12)))
    _paint_house(behind, horizon_y + 0.03, rng)
    _paint_tree(behind, horizon_y + 0.03, rng)
    _paint_bush(before, ground_y, rng)


def _paint_sun_and_clouds(behind: _Canvas, rng: np.random.Generator) -> None:
    half = behind.half_width
    if rng.random() < 0.6:
        behind.disc((float(rng.uniform(-0.1, 0.25)), 0.13), 0.055, (255, 236, 160))
    for _ in range(int(rng.integers(1, 4))):
        x, y = float(rng.uniform(-half, half)), float(rng.uniform(0.06, 0.24))
        for shift in (-0.06, 0.0, 0.06):
            behind.disc((x + shift, y), 0.05 if shift else 0.07, (255, 255, 255, 150), flatness=0.6)


def _paint_house(behind: _Canvas, foot_y: float, rng: np.random.Generator) -> None:
    wall, roof = _jittered(_one_of(WALLS, rng), rng), _jittered(_one_of(ROOFS, rng), rng)
    x, top = float(rng.uniform(-0.40, -0.36)), foot_y - float(rng.uniform(0.36, 0.44))
    behind.box((x - 0.2, top), (x + 0.19, foot_y), wall)
    behind.polygon(((x - 0.25, top), (x, top - 0.17), (x + 0.24, top)), roof)
    behind.box((x + 0.04, foot_y - 0.22), (x + 0.14, foot_y), _shade(roof, 0.7))
    behind.box((x - 0.12, top + 0.07), (x, top + 0.2), (250, 250, 245))
    behind.box((x - 0.11, top + 0.08), (x - 0.01, top + 0.19), (130, 180, 205))


def _paint_tree(behind: _Canvas, foot_y: float, rng: np.random.Generator) -> None:
    x, leaves = float(rng.uniform(0.34, 0.40)), _jittered((62, 128, 62), rng)
    behind.stroke(((x, foot_y), (x, foot_y - 0.3)), 0.05, (104, 74, 50))
    for shift_x, shift_y, radius in ((-0.08, -0.32, 0.11), (0.08, -0.32, 0.11), (0.0, -0.42, 0.14)):
        behind.disc((x + shift_x, foot_y + shift_y), radius, _shade(leaves, rng.uniform(0.9, 1.1)))


def _paint_bush(before: _Canvas, ground_y: float, rng: np.random.Generator) -> None:
    """Hides the figure up to the hip at the right end of the path."""
    x, leaves = float(rng.uniform(0.32, 0.36)), _jittered((44, 110, 56), rng)
    for _ in range(26):
        place = (x + float(rng.normal(0, 0.06)), ground_y - float(rng.uniform(-0.03, 0.2)))
        before.disc(place, float(rng.uniform(0.035, 0.06)), _shade(leaves, rng.uniform(0.85, 1.2)))


def _paint_room(behind: _Canvas, before: _Canvas, ground_y: float, rng: np.random.Generator) -> None:
    """A wallpaper, a wooden floor and a picture; a wardrobe at the left; a plant in a pot at the right."""
    half, floor_y = behind.half_width, ground_y - float(rng.uniform(0.08, 0.14))
    paper = _jittered(_one_of(PAPERS, rng), rng)
    behind.vertical_gradient(_shade(paper, 1.05), _shade(paper, 0.92), to_y=1.0)
    _paint_wallpaper(behind, paper, rng)
    floor = _jittered(_one_of(FLOORS, rng), rng)
    behind.box((-half, floor_y), (half, 1.0), floor)
    for x in np.arange(-half * 1.5, half * 1.5, 0.11):
        behind.stroke(((float(x), floor_y), (float(x) * 1.5, 1.0)), 0.005, _shade(floor, 0.85))
    behind.box((-half, floor_y - 0.025), (half, floor_y), (245, 242, 236))
    _paint_picture(behind, rng)
    _paint_wardrobe(behind, floor_y, rng)
    _paint_pot_plant(before, ground_y, rng)


def _paint_wallpaper(behind: _Canvas, paper: Color, rng: np.random.Generator) -> None:
    half, pattern = behind.half_width, _shade(paper, rng.uniform(0.86, 0.95))
    step = float(rng.uniform(0.07, 0.12))
    match int(rng.integers(3)):
        case 0:
            for x in np.arange(-half, half, step):
                behind.box((float(x), 0.0), (float(x) + step / 2, 1.0), pattern)
        case 1:
            for row, y in enumerate(np.arange(0.03, 1.0, step)):
                for x in np.arange(-half + (row % 2) * step / 2, half, step):
                    behind.disc((float(x), float(y)), 0.012, pattern)
        case _:
            pass  # a plain wall


def _paint_picture(behind: _Canvas, rng: np.random.Generator) -> None:
    x, y = float(rng.uniform(0.24, 0.32)), float(rng.uniform(0.1, 0.2))
    behind.box((x - 0.1, y), (x + 0.1, y + 0.15), (92, 66, 48))
    behind.box((x - 0.085, y + 0.015), (x + 0.085, y + 0.135), (214, 226, 232))
    behind.polygon(((x - 0.085, y + 0.135), (x - 0.02, y + 0.05), (x + 0.06, y + 0.135)), (116, 142, 124))


def _paint_wardrobe(behind: _Canvas, floor_y: float, rng: np.random.Generator) -> None:
    wood = _jittered(_one_of(WOODS, rng), rng)
    x, top = float(rng.uniform(-0.40, -0.36)), floor_y - float(rng.uniform(0.52, 0.62))
    behind.box((x - 0.17, top), (x + 0.17, floor_y + 0.02), wood, rounding=0.01)
    behind.box((x - 0.19, top - 0.02), (x + 0.19, top + 0.01), _shade(wood, 0.8))
    for left, right in ((-0.15, -0.01), (0.01, 0.15)):
        behind.box((x + left, top + 0.04), (x + right, floor_y - 0.02), _shade(wood, 1.15), rounding=0.01)
    for side in (-0.03, 0.03):
        behind.disc((x + side, (top + floor_y) / 2), 0.01, (60, 44, 34))


def _paint_pot_plant(before: _Canvas, ground_y: float, rng: np.random.Generator) -> None:
    """Hides the figure up to the hip at the right end of the path."""
    x, leaves, pot = float(rng.uniform(0.32, 0.36)), _jittered((52, 122, 64), rng), _one_of(ROOFS, rng)
    for _ in range(22):
        tip = (x + float(rng.normal(0, 0.09)), ground_y - float(rng.uniform(0.12, 0.34)))
        before.stroke(((x, ground_y - 0.05), tip), 0.035, _shade(leaves, rng.uniform(0.85, 1.2)))
    rim_y, foot_y = ground_y - 0.1, ground_y + 0.05
    before.polygon(((x - 0.09, rim_y), (x + 0.09, rim_y), (x + 0.065, foot_y), (x - 0.065, foot_y)), pot)


def _one_of(choices: tuple[Choice, ...], rng: np.random.Generator) -> Choice:
    return choices[int(rng.integers(len(choices)))]


def _between(start: Point, end: Point, share: float) -> Point:
    return start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share


def _shade(color: Color, factor: float) -> Color:
    red, green, blue = (min(255, round(channel * factor)) for channel in color)
    return red, green, blue


def _mixed(color: Color, other: Color, share: float) -> Color:
    red, green, blue = (round(a * (1 - share) + b * share) for a, b in zip(color, other, strict=True))
    return red, green, blue


def _jittered(color: Color, rng: np.random.Generator) -> Color:
    red, green, blue = (int(np.clip(channel + rng.integers(-12, 13), 0, 255)) for channel in color)
    return red, green, blue
