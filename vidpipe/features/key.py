"""What a feature depends on. Two features may be compared, or used in one model, only if their keys are equal."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from vidpipe.config import Sampling
from vidpipe.records import Preprocessing

__all__ = ["FeatureKey"]


@dataclass(frozen=True)
class FeatureKey:
    """Everything that changes a feature, besides the video itself."""

    sampling: Mapping[str, Any]
    backbone: str
    weights: str
    """sha256 of the weights' file."""
    pooling: str
    preprocessing: Mapping[str, Any]
    dtype: str
    precision: str = "full"
    """Of the image model's arithmetic. Stores made before there was a choice do not name it."""

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
    ) -> Self:
        """The key of an extraction with these settings."""
        return cls(sampling.as_dict(), backbone, weights_id, pooling, preprocessing.as_dict(), dtype, precision)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Back from `as_dict`.

        Raises:
            ValueError: a part is missing, unknown or of another type.
        """
        try:
            key = cls(**values)
        except TypeError as error:
            raise ValueError(f"not a feature key: {error}") from error
        for name, part in vars(key).items():
            if not isinstance(part, Mapping if name in ("sampling", "preprocessing") else str):
                raise ValueError(f"not a feature key: {name} is {part!r}")
        return key

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values = {**vars(self), "sampling": dict(self.sampling), "preprocessing": dict(self.preprocessing)}
        if self.precision == "full":
            del values["precision"]  # as it was written before there was a choice
        return values

    def as_json(self) -> str:
        """One text for equal keys."""
        return json.dumps(self.as_dict(), sort_keys=True)

    def resolve_sampling(self) -> Sampling:
        """The sampling that made these features."""
        return Sampling(**self.sampling)

    def difference(self, other: "FeatureKey") -> str:
        """Where two keys differ, in words: `sampling: {…} here, {…} asked for`."""
        ours, theirs = ({"precision": "full", **key.as_dict()} for key in (self, other))
        return "; ".join(
            f"{name}: {json.dumps(ours[name])} here, {json.dumps(theirs[name])} asked for"
            for name in ours
            if ours[name] != theirs[name]
        )
