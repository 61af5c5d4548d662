"""Config files: which tables a file has, reading it with all checks, and writing one."""

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from vidpipe.config.extract import ExtractConfig
from vidpipe.config.finetune import FinetuneConfig
from vidpipe.config.predict import PredictConfig
from vidpipe.config.setting import Config, settings
from vidpipe.config.timeline import TimelineConfig
from vidpipe.config.train import EvaluateConfig, LabelsConfig, TrainConfig
from vidpipe.errors import ConfigError, UsageError, unknown_name

__all__ = ["SECTIONS", "load_section", "save_config"]

SECTIONS: Mapping[str, tuple[type[Config], ...]] = {
    "extract": (ExtractConfig,),
    "train": (TrainConfig, LabelsConfig),
    "evaluate": (EvaluateConfig, LabelsConfig),
    "predict": (PredictConfig, TimelineConfig),
    "finetune": (FinetuneConfig,),
}
"""The tables of a config file, and the configs whose settings each may contain."""


def load_section(path: Path, section: str, *, config: type[Config] | None = None) -> dict[str, Any]:
    """Read one table of a TOML config file.

    Args:
        path: the file.
        section: the table, one of `SECTIONS`; the whole file is checked.
        config: return settings of this class only.

    Returns:
        the values by name, of the settings' types.

    Raises:
        ConfigError: the file does not parse, or contains an unknown table, key or value.
    """
    document = _load_toml(path)
    checked = {table: _checked_table(path, table, values) for table, values in document.items()}
    names = [setting.name for one in SECTIONS[section] if config in (None, one) for setting in settings(one)]
    return {name: value for name, value in checked.get(section, {}).items() if name in names}


def _load_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; --config names a TOML file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: a folder; --config names a TOML file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}, line {line}: not UTF-8 text; save the file as plain text in UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error


def _checked_table(path: Path, table: str, values: Any) -> dict[str, Any]:
    if not isinstance(values, dict) and table not in SECTIONS:
        tables = _tables_with(table)
        where = f"put it below {tables}" if tables else f"the tables are {', '.join(SECTIONS)}"
        raise ConfigError(f"{path}: {table!r} is outside a table; {where}")
    if table not in SECTIONS:
        raise ConfigError(f"{path}: {unknown_name('table', table, SECTIONS)}")
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: {table!r} is a table; write [{table}] on a line of its own")
    known = {setting.name: setting for config in SECTIONS[table] for setting in settings(config)}
    for name in values:
        if name not in known and (tables := _tables_with(name)):
            raise ConfigError(f"{path}, [{table}]: {name!r} is not a setting of {table}; put it below {tables}")
        if name not in known:
            raise ConfigError(f"{path}, [{table}]: {unknown_name('key', name, known)}")
    try:
        checked = {name: known[name].check(value) for name, value in values.items()}
        for config in SECTIONS[table]:
            config.check_together(checked)
    except UsageError as error:
        raise ConfigError(f"{path}, [{table}]: {error}") from error
    return checked


def _tables_with(name: str) -> str:
    """`[extract] or [train]`: the tables that a setting may be in; empty for an unknown name."""
    return " or ".join(
        f"[{table}]"
        for table, configs in SECTIONS.items()
        if any(setting.name == name for config in configs for setting in settings(config))
    )


def save_config(path: Path, **sections: Config) -> None:
    """Write a config file that `--config` can read; settings that are None are left out."""
    document = {
        name: {key: value for key, value in dataclasses.asdict(config).items() if value is not None}
        for name, config in sections.items()
    }
    path.write_text(tomli_w.dumps(document), encoding="utf-8")
