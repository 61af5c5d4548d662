"""`make bench`: runs every benchmark and writes RESULTS.md."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks import accuracy, extract_speed

RESULTS = Path(__file__).with_name("RESULTS.md")
PACKAGES = ("vidpipe", "torch", "torchvision", "timm", "decord2", "av", "scikit-learn")


def machine() -> str:
    """One line: date, processor, cores, versions."""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    cores = f"{os.cpu_count()} cores, {platform.machine()}"
    return f"{datetime.now(UTC):%Y-%m-%d}; {cores}; Python {platform.python_version()}; {versions}"


if __name__ == "__main__":
    sections = [benchmark.run() for benchmark in (extract_speed, accuracy)]
    RESULTS.write_text("\n\n".join(["# Results of `make bench`", machine(), *sections]) + "\n", encoding="utf-8")
