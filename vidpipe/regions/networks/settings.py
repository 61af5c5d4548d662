"""The settings that build a network, as text beside its weights."""

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

__all__ = ["NetworkSettings"]


@dataclass(frozen=True)
class NetworkSettings:
    """What a network needs to be built; each network has its own fields, numbers, texts and tuples of them."""

    def to_json(self) -> str:
        """Return the settings as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read settings.

        Args:
            text: from `to_json`.

        Returns:
            The settings.

        Raises:
            ValueError: the text holds no settings of such a network.
            UsageError: there is no such network.
        """
        values = json.loads(text)
        if not isinstance(values, dict) or values.keys() != {field.name for field in fields(cls)}:
            raise ValueError(f"these are no settings of this network: {text[:80]}")
        return cls(**{name: _as_tuple(value) for name, value in values.items()})


def _as_tuple(value: Any) -> Any:
    """Lists, also those in lists, as tuples."""
    return tuple(_as_tuple(one) for one in value) if isinstance(value, list) else value
