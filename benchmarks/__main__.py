"""`make bench`: runs the benchmarks and writes RESULTS.md, each section as soon as it is measured."""

import os
import platform
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")
NAMES = (
    "extract_speed",
    "utilisation",
    "decode_speed",
    "start_up",
    "store_reading",
    "train_speed",
    "backbones",
    "memory",
    "fuzz",
    "kills",
    "accuracy",
    "heads",
)
PACKAGES = ("vidpipe", "torch", "torchvision", "timm", "onnxruntime", "decord2", "av", "scikit-learn")


def machine() -> str:
    """One line: date, processor, cores, versions."""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    cores = f"{os.cpu_count()} cores, {platform.machine()}"
    return f"{datetime.now(UTC):%Y-%m-%d}; {cores}; Python {platform.python_version()}; {versions}"


if __name__ == "__main__":
    sections = ["# Results of `make bench`", machine()]
    for name in NAMES:
        sections.append(import_module(f"benchmarks.{name}").run())
        RESULTS.write_text("\n\n".join(sections) + "\n", encoding="utf-8")
