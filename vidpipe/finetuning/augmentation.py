"""Random changes of clips, the same for all frames of a clip: crop, mirror, colour."""

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from vidpipe.config import FinetuneConfig
from vidpipe.errors import UsageError, first_few
from vidpipe.finetuning.frames import CachedClip, centre_offset
from vidpipe.records import Preprocessing

__all__ = ["ClipChanges", "may_flip"]

_SIDES = re.compile(r"(?<![a-z])(left|right|clockwise|anticlockwise|counterclockwise)(?![a-z])", re.IGNORECASE)


def may_flip(flip: str, class_names: Sequence[str]) -> bool:
    """Return whether clips may be mirrored.

    Args:
        flip: `auto`, `on` or `off`.
        class_names: the labels; one that names a side is another one in a mirror.

    Returns:
        The answer.

    Raises:
        UsageError: `on`, and a label names a side.
    """
    sided = [name for name in class_names if _SIDES.search(name.replace("_", " "))]
    if flip == "on" and sided:
        raise UsageError(f"--flip on: a mirrored clip of {first_few(sided)} shows another action; use --flip off")
    return flip == "on" or (flip == "auto" and not sided)


class ClipChanges:
    """Changes clips at random in training, and takes the centre crop otherwise.

    Args:
        preprocessing: of the backbone.
        config: `crop_scale` and `colour`.
        flips: whether clips may be mirrored.
    """

    def __init__(self, preprocessing: Preprocessing, config: FinetuneConfig, *, flips: bool) -> None:
        from torchvision.transforms import InterpolationMode, v2

        self._size, self._offset = preprocessing.size, centre_offset(preprocessing)
        mode = InterpolationMode(preprocessing.interpolation)
        self._crops = config.crop_scale < 1
        changes: list[torch.nn.Module] = []
        if self._crops:
            changes.append(v2.RandomResizedCrop(self._size, (config.crop_scale, 1.0), interpolation=mode))
        if flips:
            changes.append(v2.RandomHorizontalFlip())
        if config.colour:
            changes.append(v2.ColorJitter(config.colour, config.colour, config.colour))
        self._changes = v2.Compose(changes) if changes else None

    def centre(self, pictures: Tensor) -> Tensor:
        """Take the crop that the backbone sees in an extraction: (…, 3, h, w) uint8 -> (…, 3, H, W)"""
        (top, left), (height, width) = self._offset, self._size
        return pictures[..., top : top + height, left : left + width]

    def centre_rows(self, clip: CachedClip) -> Tensor:
        """Take the frames that an extraction sees of a clip: (T, 3, H, W), or (T, W, 3, H, W) of windows, uint8"""
        return self.centre(clip.pictures)[torch.from_numpy(clip.row_pictures)]

    def draw(self, pictures: Tensor, seed: int) -> Tensor:
        """Change a clip at random.

        Args:
            pictures: (…, 3, h, w) uint8, all frames of a clip.
            seed: another one gives other changes.

        Returns:
            (…, 3, H, W) uint8
        """
        pictures = pictures if self._crops else self.centre(pictures)
        if self._changes is None:
            return pictures
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            changed: Tensor = self._changes(pictures)
        return changed
