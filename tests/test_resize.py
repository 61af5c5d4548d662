import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from vidpipe.records import Preprocessing
from vidpipe.video.crop import MAX_ASPECT_RATIO
from vidpipe.video.resize import resize_and_crop

BILINEAR = Preprocessing(256, 224, "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
BICUBIC = Preprocessing(342, 299, "bicubic", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def pictures(height: int, width: int) -> NDArray[np.uint8]:
    """(2, H, W, 3) noise, smoothed along its longer side."""
    noise = np.random.default_rng(0).integers(0, 256, (2, height, width, 3)).astype(np.float64)
    smooth = np.abs(noise.cumsum(axis=2 if width > height else 1))
    return np.asarray(smooth % 510 // 2, np.uint8)


def by_torchvision(frames: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    resized = functional.resize(
        torch.from_numpy(frames).permute(0, 3, 1, 2),
        [preprocessing.resize],
        interpolation=InterpolationMode(preprocessing.interpolation),
        antialias=True,
    )
    return np.asarray(functional.center_crop(resized, [preprocessing.crop]), np.uint8)


@pytest.mark.parametrize("preprocessing", [BILINEAR, BICUBIC], ids=["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(48, 64), (1080, 1920), (320, 180), (256, 256), (1, 1), (32, 32 * MAX_ASPECT_RATIO)])
def test_ordinary_pictures_are_resized_and_cropped_as_torchvision_does(
    size: tuple[int, int], preprocessing: Preprocessing
) -> None:
    frames = pictures(*size)
    assert np.array_equal(resize_and_crop(frames, preprocessing), by_torchvision(frames, preprocessing))


@pytest.mark.parametrize("size", [(40, 40 * 25), (40 * 25 + 1, 40)])
def test_the_crop_of_an_elongated_picture_is_that_of_the_whole_picture(size: tuple[int, int]) -> None:
    frames = pictures(*size)
    difference = resize_and_crop(frames, BILINEAR).astype(int) - by_torchvision(frames, BILINEAR)
    assert np.abs(difference).mean() < 1


@pytest.mark.parametrize("size", [(2, 10_000), (10_000, 2), (1, 60_000)])
def test_an_extremely_elongated_picture_takes_little_memory(size: tuple[int, int]) -> None:
    cropped = resize_and_crop(pictures(*size), BILINEAR)
    assert cropped.shape == (2, 3, 224, 224)
    resized = cropped.base
    assert resized is not None
    assert resized.nbytes <= 2 * 3 * 256 * 256 * (MAX_ASPECT_RATIO + 2)
