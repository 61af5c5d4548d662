"""The motion backbone on drawn motion: what was drawn is the oracle."""

from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from vidpipe.backbones.flow import FlowParameters, compute_flow, describe, draw_flow

HEIGHT, WIDTH = 120, 160
RIGHT, DOWN, LEFT, UP, STILL = 0, 2, 4, 6, 8
"""Bins of a histogram with 8 directions."""
PARAMETERS = FlowParameters()
Frame = NDArray[np.uint8]
Place = Callable[[NDArray[np.float64], NDArray[np.float64]], tuple[NDArray[np.float64], NDArray[np.float64]]]


def texture(x: NDArray[np.float64], y: NDArray[np.float64], *, phase: float = 0.0) -> NDArray[np.float64]:
    """The brightness of an endless smooth texture at any place, 0 to 255."""
    waves = np.sin(x * 0.61 + y * 0.23 + phase) + np.sin(y * 0.53 - x * 0.31 + 2 * phase) + np.sin((x + y) * 0.17 + 1)
    return 127 + 40 * waves


def picture(place: Place = lambda x, y: (x, y), *, phase: float = 0.0) -> Frame:
    """(3, H, W): the texture, where each pixel shows another place of it."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
    gray = np.rint(texture(*place(x, y), phase=phase)).astype(np.uint8)
    return np.repeat(gray[None], 3, axis=0)


def moved(right: float, down: float, **options: float) -> Frame:
    """The texture after it has moved."""
    return picture(lambda x, y: (x - right, y - down), **options)


def with_square(background: Frame, *, left: int, top: int, side: int = 40) -> Frame:
    """A picture with a textured square that takes its texture along."""
    frame = background.copy()
    square = moved(left, top, phase=2.0)
    frame[:, top : top + side, left : left + side] = square[:, top : top + side, left : left + side]
    return frame


def window(*frames: Frame) -> Frame:
    """(1, W, 3, H, W)"""
    return np.stack(frames)[None]


def flow_histograms(*frames: Frame, parameters: FlowParameters = PARAMETERS) -> NDArray[np.float32]:
    """(rows, columns, bins) the histogram of flow in each cell."""
    grid, num_bins = parameters.grid, parameters.num_directions + 1
    return describe(window(*frames), parameters)[0, : grid * grid * num_bins].reshape(grid, grid, num_bins)


def strongest(histogram: NDArray[np.float32]) -> int:
    """The direction with the largest share, whatever is still."""
    return int(histogram[:STILL].argmax())


@pytest.fixture
def opencv_settings() -> Iterator[None]:
    threads, optimised = cv2.getNumThreads(), cv2.useOptimized()
    yield
    cv2.setNumThreads(threads)
    cv2.setUseOptimized(optimised)


@pytest.mark.parametrize("finest_scale", [0, 1])
def test_flow_is_the_drawn_motion(finest_scale: int) -> None:
    flow = compute_flow(moved(0, 0), moved(2, -1), FlowParameters(finest_scale=finest_scale))

    assert flow.shape == (HEIGHT, WIDTH, 2)
    assert np.median(abs(flow - (2, -1))) < 0.25


@pytest.mark.parametrize(
    ("right", "down", "direction"), [(3, 0, RIGHT), (0, 3, DOWN), (-3, 0, LEFT), (0, -3, UP), (3, 3, 1)]
)
def test_square_counts_for_the_direction_that_it_moves_in(right: int, down: int, direction: int) -> None:
    background = moved(0, 0)
    first = with_square(background, left=60, top=40)
    second = with_square(background, left=60 + right, top=40 + down)

    assert strongest(flow_histograms(first, second)[1, 1]) == direction


def test_growing_picture_moves_outwards_in_each_cell() -> None:
    centre_x, centre_y, zoom = (WIDTH - 1) / 2, (HEIGHT - 1) / 2, 1.05
    second = picture(lambda x, y: (centre_x + (x - centre_x) / zoom, centre_y + (y - centre_y) / zoom))

    histograms = flow_histograms(moved(0, 0), second)

    assert [strongest(histograms[1, 0]), strongest(histograms[1, 2])] == [LEFT, RIGHT]
    assert [strongest(histograms[0, 1]), strongest(histograms[2, 1])] == [UP, DOWN]


def test_turning_picture_moves_around_its_centre() -> None:
    centre_x, centre_y, turn = (WIDTH - 1) / 2, (HEIGHT - 1) / 2, np.deg2rad(3)

    def before(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        right, down = x - centre_x, y - centre_y
        return (
            centre_x + right * np.cos(turn) + down * np.sin(turn),
            centre_y - right * np.sin(turn) + down * np.cos(turn),
        )

    histograms = flow_histograms(moved(0, 0), picture(before))

    assert [strongest(histograms[0, 1]), strongest(histograms[1, 2])] == [RIGHT, DOWN]
    assert [strongest(histograms[2, 1]), strongest(histograms[1, 0])] == [LEFT, UP]


def test_still_frames_are_all_still() -> None:
    histograms = describe(window(moved(0, 0), moved(0, 0)))[0].reshape(3, 9, 9)

    assert np.all(histograms[..., STILL] > 0.95)
    assert np.all(histograms[..., :STILL] == 0)


def test_panning_camera_is_no_motion() -> None:
    panned = flow_histograms(moved(0, 0), moved(3, 1))

    assert panned[..., STILL].min() > 0.9


def test_object_moves_in_front_of_a_panning_camera() -> None:
    first = with_square(moved(0, 0), left=60, top=40)
    second = with_square(moved(2, 0), left=60, top=43)  # relative to the scene, it moves 2 to the left and 3 down

    histograms = flow_histograms(first, second)

    assert strongest(histograms[1, 1]) in (DOWN, DOWN + 1)
    assert histograms[2, 2, STILL] > 0.9


def test_each_cell_sees_its_own_motion() -> None:
    background = moved(0, 0)
    first = with_square(background, left=5, top=2, side=32)
    second = with_square(background, left=8, top=2, side=32)

    histograms = flow_histograms(first, second)

    moving = histograms[..., RIGHT]
    assert moving.argmax() == 0
    assert moving[1:, 1:].max() < 0.05 < 0.3 < moving[0, 0]


def test_motion_boundaries_are_at_the_edge_of_what_moves() -> None:
    background = moved(0, 0)
    first = with_square(background, left=60, top=40)
    second = with_square(background, left=63, top=40)

    _, horizontal, vertical = describe(window(first, second))[0].reshape(3, 3, 3, 9)

    assert horizontal[1, 1, STILL] < horizontal[0, 0, STILL]
    assert horizontal[1, 1, [RIGHT, LEFT]].min() > 2 * vertical[1, 1, :STILL].max()


def test_shares_of_a_cell_sum_to_one() -> None:
    first = with_square(moved(0, 0), left=60, top=40)
    rng = np.random.default_rng(0)
    noisy = np.clip(first + rng.integers(-20, 20, first.shape), 0, 255).astype(np.uint8)

    features = describe(window(first, noisy))[0]

    offset = np.sqrt(1e-3)
    shares = ((features.astype(np.float64) + offset) ** 2 - 1e-3).reshape(27, 9)
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-5)
    assert features.min() >= 0


def test_longer_window_is_the_mean_of_its_steps() -> None:
    background = moved(0, 0)
    frames = [with_square(background, left=left, top=40) for left in (60, 63, 60)]

    histogram = flow_histograms(*frames)[1, 1]

    assert histogram[RIGHT] == pytest.approx(histogram[LEFT], rel=0.15)
    assert histogram[RIGHT] > 2 * histogram[DOWN]


def test_windows_are_described_one_by_one() -> None:
    pairs = [window(moved(0, 0), with_square(moved(0, 0), left=left, top=40)) for left in (0, 60)]

    together = describe(np.concatenate(pairs))

    assert together.shape == (2, PARAMETERS.dim)
    np.testing.assert_array_equal(together, np.concatenate([describe(pair) for pair in pairs]))


def noisy_window() -> Frame:
    rng = np.random.default_rng(0)
    first = with_square(moved(0, 0), left=60, top=40)
    second = with_square(moved(1.3, 0.4), left=63, top=42)
    return window(first, np.clip(second + rng.integers(-5, 6, second.shape), 0, 255).astype(np.uint8))


@pytest.mark.parametrize("num_threads", [1, 2, 4])
def test_features_do_not_depend_on_threads(num_threads: int, opencv_settings: None) -> None:
    expected = describe(noisy_window())

    cv2.setNumThreads(num_threads)

    np.testing.assert_array_equal(describe(noisy_window()), expected)


def test_features_hardly_depend_on_optimised_code(opencv_settings: None) -> None:
    expected = describe(noisy_window())

    cv2.setUseOptimized(False)

    np.testing.assert_allclose(describe(noisy_window()), expected, atol=1e-3)


def test_small_difference_of_the_limit_changes_a_feature_by_little() -> None:
    first = with_square(moved(0, 0), left=60, top=40)
    windows = window(first, with_square(moved(0, 0), left=63, top=40))

    features = describe(windows, FlowParameters(still_pixels=0.25))

    np.testing.assert_allclose(describe(windows, FlowParameters(still_pixels=0.2501)), features, atol=1e-3)


@pytest.mark.parametrize(
    ("flow", "colour"),
    [((5, 0), (255, 0, 0)), ((-5, 0), (0, 255, 255)), ((0, 5), (128, 255, 0)), ((0, -5), (128, 0, 255))],
)
def test_drawing_shows_direction_as_hue(flow: tuple[int, int], colour: tuple[int, int, int]) -> None:
    drawing = draw_flow(np.full((4, 4, 2), flow, np.float32))

    assert drawing.dtype == np.uint8
    np.testing.assert_allclose(drawing[0, 0], colour, atol=2)


def test_drawing_shows_speed_as_brightness() -> None:
    flow = np.zeros((1, 3, 2), np.float32)
    flow[0, :, 0] = 0, 1, 2

    assert draw_flow(flow)[0, :, 0].tolist() == [0, 128, 255]
    assert draw_flow(flow, full_speed=4)[0, :, 0].tolist() == [0, 64, 128]


def test_drawing_of_a_still_flow_is_black() -> None:
    assert not draw_flow(np.zeros((4, 4, 2), np.float32)).any()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"iterations": 0}, "iterations of 1 or more"),
        ({"grid": 0}, "grid of 1 or more"),
        ({"num_directions": 1}, "2 directions or more"),
        ({"still_pixels": 0}, "above 0"),
    ],
)
def test_wrong_parameters_are_refused(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FlowParameters(**parameters)  # type: ignore[arg-type]


def test_single_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="W of 2 or more"):
        describe(window(moved(0, 0)))


def test_tiny_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 16 pixels"):
        describe(np.zeros((1, 2, 3, 8, 8), np.uint8))


def test_key_holds_every_parameter() -> None:
    assert PARAMETERS.as_dict() == {
        "finest_scale": 1,
        "patch_stride": 4,
        "iterations": 12,
        "grid": 3,
        "num_directions": 8,
        "still_pixels": 0.25,
        "still_gradient": 0.1,
    }
