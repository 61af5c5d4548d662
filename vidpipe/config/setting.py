"""One setting with its checks, and the base of the configs, whose fields are settings."""

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from vidpipe.errors import ConfigError, unknown_name

__all__ = ["Config", "Setting", "check_names", "make_config", "setting", "settings"]


@dataclass(frozen=True)
class Setting:
    """One setting: its name, type, default and allowed values."""

    name: str
    type: type
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    """The range is [low, high]; `above` excludes low itself."""
    above: bool = False
    several: bool = False
    """Whether the value is a list of names, separated by commas; its option may be given several times."""
    is_path: bool = False
    """Whether the value is a file or folder, relative to the working folder."""
    metavar: str = ""
    """Placeholder of the value in the help; empty for the type's own."""
    flags: tuple[str, ...] = ()
    """Other names of the option."""

    def check(self, value: Any) -> Any:
        """Convert a value to the setting's type, and check it.

        Args:
            value: a whole number where a float is expected, a list of names where several are allowed, and a path where
                text is expected are converted.

        Returns:
            the value, as the setting's type.

        Raises:
            ConfigError: the value is of another type, out of range, or not one of the choices.
        """
        if value is None and self.default is None:
            return None
        value = self._converted(value)
        is_bool = isinstance(value, bool)
        if not isinstance(value, self.type) or is_bool != (self.type is bool):
            raise ConfigError(f"{self.name} = {_as_toml(value)}: write {self._how_to_write}")
        for chosen in str(value).split(",") if self.several else [value]:
            if self.choices and chosen not in self.choices:
                raise ConfigError(unknown_name(self.name, str(chosen), self.choices))
        if not self._in_range(value):
            raise ConfigError(f"{self.name} = {value!r}: {self.allowed} is needed")
        return value

    def _converted(self, value: Any) -> Any:
        if self.type is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if self.type is str and isinstance(value, os.PathLike):
            return os.fspath(value)
        if self.several and isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
            return ",".join(value)
        return value

    @property
    def _how_to_write(self) -> str:
        """How to write a value of the type in TOML."""
        if self.several:
            examples = self.choices[:2] or (self.default or "NAME",)
            return f'names in quotes with commas between them, such as "{",".join(examples)}"'
        if self.type is str:
            return f'text in quotes, such as "{self.choices[0]}"' if self.choices else "text in quotes"
        kinds = {int: "a whole number without quotes", float: "a number without quotes", bool: "true or false"}
        return kinds[self.type]

    def _in_range(self, value: Any) -> bool:
        above_low = self.low is None or (value > self.low if self.above else value >= self.low)
        return bool(above_low and (self.high is None or value <= self.high))

    @property
    def allowed(self) -> str:
        """The range in words: `1 or more`, `above 0`, `0 to 0.9`."""
        if self.high is not None:
            return f"{'above ' if self.above else ''}{self.low:g} to {self.high:g}"
        return f"above {self.low:g}" if self.above else f"{self.low:g} or more"


def _as_toml(value: Any) -> str:
    """A value as written in TOML: `"many"`, `true`, `[1, 2]`."""
    return "a table" if isinstance(value, dict) else json.dumps(value, ensure_ascii=False, default=str)


def setting(default: Any, help: str, **limits: Any) -> Any:
    """Declare a field of a config.

    Args:
        default: its value where none is given.
        help: a sentence for `--help`.
        limits: other fields of its `Setting`.

    Returns:
        a dataclass field, of which `settings` makes the `Setting`.
    """
    return dataclasses.field(default=default, metadata={"help": help, **limits})


@dataclass(frozen=True)
class Config:
    """Settings of a command. Each field is checked against its `Setting` when the config is made."""

    def __post_init__(self) -> None:
        for one in settings(type(self)):
            object.__setattr__(self, one.name, one.check(getattr(self, one.name)))
        self.check_together(dataclasses.asdict(self))

    @staticmethod
    def check_together(values: Mapping[str, Any]) -> None:
        """Check that the values do not contradict each other.

        Args:
            values: by name; those missing are not known yet.

        Raises:
            UsageError: two values contradict each other.
        """

    @staticmethod
    def replaced(from_file: Mapping[str, Any], given: Mapping[str, Any]) -> set[str]:
        """Return the settings of a file that an option makes obsolete, because it selects another method.

        Args:
            from_file: values from the config file.
            given: values from the options, which override the file.

        Returns:
            names of settings whose values in the file are ignored.
        """
        return set()


AnyConfig = TypeVar("AnyConfig", bound=Config)


def settings(config: type) -> tuple[Setting, ...]:
    """Return the settings of a config class, in the order of declaration."""
    return tuple(
        Setting(field.name, _plain_type(field.type), field.default, **field.metadata) for field in fields(config)
    )


def _plain_type(annotation: Any) -> type:
    """`int | None` -> int"""
    members = [member for member in getattr(annotation, "__args__", (annotation,)) if member is not type(None)]
    return members[0]  # type: ignore[no-any-return]


def check_names(names: Iterable[str], known: Iterable[str]) -> None:
    """Check the names of settings that are given in Python.

    Args:
        names: the names given.
        known: the names allowed.

    Raises:
        ConfigError: a name is not allowed; the message has the nearest one.
    """
    known = list(known)
    for name in names:
        if name not in known:
            raise ConfigError(unknown_name("setting", name, known))


def make_config(config: type[AnyConfig], values: Mapping[str, Any]) -> AnyConfig:
    """Make a config of those values that are its settings; the others are ignored.

    Args:
        config: the class.
        values: by name.

    Returns:
        a config, with defaults for the settings that are missing.

    Raises:
        ConfigError: a value is of another type, out of range, or not one of the choices.
        UsageError: two values contradict each other.
    """
    return config(**{one.name: values[one.name] for one in settings(config) if one.name in values})
