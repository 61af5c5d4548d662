"""The key of features: what they depend on. Only features with equal keys may be compared or used in one model."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from vidpipe.config import Decoding, Sampling
from vidpipe.records import Preprocessing, Window

__all__ = ["KINDS_BY_PERSON", "KINDS_OF_BOXES", "FeatureKey"]

logger = logging.getLogger(__name__)

KINDS_BY_PERSON = ("tracks", "faces")
"""The kinds of regions whose rows are of single people."""
KINDS_OF_BOXES = ("people", *KINDS_BY_PERSON)
"""The kinds of regions that rows hold. Masks are not stored."""

_DEFAULTS = {"precision": "full", "window": None, "grid": 1, "parameters": None, "regions": None, "decoding": None}
"""Settings that stores made before they existed do not name."""
_TYPES = {
    "sampling": Mapping,
    "preprocessing": Mapping,
    "grid": int,
    "window": Mapping | None,
    "parameters": Mapping | None,
    "regions": Mapping | None,
    "decoding": Mapping | None,
}
"""By name; all others are texts."""
_OF_BACKBONE = ("weights", "preprocessing", "window", "parameters")
"""What a backbone's name implies: not named where the backbones differ."""


@dataclass(frozen=True)
class FeatureKey:
    """Everything that changes a feature, except the video itself."""

    sampling: Mapping[str, Any]
    backbone: str
    weights: str
    """sha256 of the weights' file."""
    pooling: str
    preprocessing: Mapping[str, Any]
    dtype: str
    precision: str = "full"
    """Of the backbone's arithmetic. A key names what follows, too, only where it differs from the default."""
    window: Mapping[str, Any] | None = None
    """The frames that a row's feature is made from; None where it is one frame."""
    grid: int = 1
    """G: a frame has a row for each of G × G cells of the picture too; 1 where it has only one row."""
    parameters: Mapping[str, Any] | None = None
    """All other numbers that a motion backbone's features depend on."""
    regions: Mapping[str, Any] | None = None
    """What of each frame the backbone sees, and the detector that decides it; None where it sees whole frames."""
    decoding: Mapping[str, Any] | None = None
    """Settings of the decoder that change pixels: `fast_decode`, `decoder`; None where pixels are exact."""

    @property
    def num_cells(self) -> int:
        """C, the rows of each frame: the whole picture and, with a grid, G × G cells of it."""
        return 1 if self.grid == 1 else 1 + self.grid**2

    @classmethod
    def of(
        cls,
        sampling: Sampling,
        *,
        backbone: str,
        weights_id: str,
        pooling: str,
        preprocessing: Preprocessing,
        dtype: str,
        precision: str = "full",
        window: Window | None = None,
        grid: int = 1,
        parameters: Mapping[str, Any] | None = None,
        regions: Mapping[str, Any] | None = None,
        decoding: Mapping[str, Any] | None = None,
    ) -> Self:
        """Return the key of an extraction with these settings."""
        return cls(
            sampling.as_dict(),
            backbone,
            weights_id,
            pooling,
            preprocessing.as_dict(),
            dtype,
            precision,
            window=None if window is None else window.as_dict(),
            grid=grid,
            parameters=parameters,
            regions=regions,
            decoding=decoding,
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make a key from the values of `as_dict`.

        Args:
            values: from JSON.

        Returns:
            The key.

        Raises:
            ValueError: a value is missing, unknown or of another type.
        """
        try:
            key = cls(**values)
        except TypeError as error:
            raise ValueError(f"not a feature key: {error}") from error
        for name, value in vars(key).items():
            if not isinstance(value, _TYPES.get(name, str)):
                raise ValueError(f"not a feature key: {name} is {value!r}")
        return key

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        values = {name: value for name, value in vars(self).items() if value != _DEFAULTS.get(name)}
        return {name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()}

    def as_json(self) -> str:
        """Return a text that is the same for equal keys."""
        return json.dumps(self.as_dict(), sort_keys=True)

    def resolve_sampling(self) -> Sampling:
        """Return the sampling that made these features."""
        return Sampling(**self.sampling)

    def resolve_decoding(self) -> Decoding:
        """Return how the frames of these features were decoded."""
        return Decoding(**(self.decoding or {}))

    @property
    def decoding_words(self) -> str:
        """How the frames were decoded, in words: `decoded exactly`, `decoded with --fast-decode nonref`."""
        if self.decoding is None:
            return "decoded exactly"
        options = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in self.decoding.items())
        return f"decoded with {options}"

    def contrast(self, other: "FeatureKey") -> tuple[str, str]:
        """Describe two keys by what differs between them.

        The debug log has both keys in full.

        Args:
            other: another key.

        Returns:
            This key in words, and the other: `efficientnet_lite1 features, sampled uniform, 16 frames`. Where the
            backbones differ, their weights and preprocessing are not named.
        """
        logger.debug("two keys differ:\n%s\n%s", self.as_json(), other.as_json())
        ours, theirs = self._words(other), other._words(self)
        return ", ".join(ours), ", ".join(theirs)

    def difference(self, other: "FeatureKey") -> str:
        """Describe how two keys differ: `resnet50 features here, resnet101 features asked for`."""
        return "{} here, {} asked for".format(*self.contrast(other))

    def _words(self, other: "FeatureKey") -> list[str]:
        """This key's values that differ from the other's, in words, the backbone first."""
        differs = [name for name, value in vars(self).items() if value != getattr(other, name)]
        if "backbone" in differs:
            differs = [name for name in differs if name not in _OF_BACKBONE]
        words = {
            "sampling": f"sampled {self._sampling_words()}",
            "weights": "random weights" if self.weights == "random" else f"weights {self.weights[:8]}…",
            "pooling": f"{self.pooling} pooling",
            "preprocessing": _preprocessing_words(self.preprocessing, other.preprocessing),
            "precision": f"{self.precision} precision",
            "window": "single frames" if self.window is None else _window_words(self.window),
            "grid": f"{self.grid} × {self.grid} cells of each picture" if self.grid > 1 else "no cells of pictures",
            "parameters": json.dumps(self.parameters),
            "regions": _region_words(self.regions, other.regions),
            "decoding": self.decoding_words,
            "dtype": self.dtype,
        }
        return [f"{self.backbone} features", *(word for name, word in words.items() if name in differs)]

    def _sampling_words(self) -> str:
        try:
            return str(self.resolve_sampling())
        except TypeError:  # another program's store
            return json.dumps(dict(self.sampling))


def _preprocessing_words(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """What differs, by name and value; `whole pictures` or `centre crops` where that is all."""
    differs = [name for name, value in ours.items() if theirs.get(name) != value]
    if differs == ["resize"] and _shows_whole(ours) != _shows_whole(theirs):
        return "whole pictures" if _shows_whole(ours) else "centre crops"
    return ", ".join(f"{name} {ours[name]}" for name in differs)


def _shows_whole(preprocessing: Mapping[str, Any]) -> bool:
    """Whether pictures are resized to the model's size, without a crop."""
    crop = preprocessing.get("crop")
    return preprocessing.get("resize") == ([crop, crop] if isinstance(crop, int) else crop)


def _region_words(ours: Mapping[str, Any] | None, theirs: Mapping[str, Any] | None) -> str:
    """`regions people by movenet`; of two finders of one kind by one detector, what differs."""
    if ours is None:
        return "whole frames"
    words = f"regions {ours.get('kind')} by {ours.get('detector')}"
    if theirs is None:
        return words
    differs = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    if {"kind", "detector"} & set(differs):
        return words
    return f"{words}, {', '.join(_region_setting(name, ours.get(name), theirs.get(name)) for name in differs)}"


def _region_setting(name: str, ours: object, theirs: object) -> str:
    """`weights 0a1b2c3d`; of one that is a group of settings, `crf` or `no crf`, or the settings if both have them."""
    if ours is None:
        return f"no {name}"
    if isinstance(ours, Mapping):
        return name if theirs is None else f"{name} {json.dumps(dict(ours))}"
    return f"{name} {str(ours)[:8]}"


def _window_words(window: Mapping[str, Any]) -> str:
    """`windows of 16 frames at 15 fps, one each 0.5 s`"""
    rate = "" if window.get("fps") is None else f" at {window['fps']:g} fps"
    stride = "" if window.get("stride_seconds") is None else f", one each {window['stride_seconds']:g} s"
    return f"windows of {window.get('num_frames')} frames{rate}{stride}"
