"""Runs benchmarks and writes their sections of RESULTS.md, each as soon as it is measured.

python -m benchmarks              `make bench`: those that take under 20 minutes together on 2 cores
python -m benchmarks heads        some, by name; heads takes half an hour, backbones an hour
"""

import os
import platform
import re
import sys
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")
NAMES = (
    "extract_speed",
    "utilisation",
    "time_by_stage",
    "decode_speed",
    "start_up",
    "store_reading",
    "train_speed",
    "memory",
    "fuzz",
    "kills",
    "run_kills",
    "accuracy",
)
PACKAGES = ("vidpipe", "torch", "torchvision", "timm", "onnxruntime", "decord2", "av", "scikit-learn")


def machine() -> str:
    """One line: date, processor, cores, versions."""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    cores = f"{os.cpu_count()} cores, {platform.machine()}"
    return f"{datetime.now(UTC):%Y-%m-%d}; {cores}; Python {platform.python_version()}; {versions}"


def put(document: str, section: str) -> str:
    """A document with a section in the place of the one of the same title, or at its end."""
    head, *sections = re.split(r"^(?=## )", document, flags=re.MULTILINE)
    by_title = {one.split("\n", 1)[0]: one.strip() for one in sections}
    by_title[section.split("\n", 1)[0]] = section.strip()
    return "\n\n".join([head.strip(), *by_title.values()]) + "\n"


if __name__ == "__main__":
    for name in sys.argv[1:] or NAMES:
        section = f"{import_module(f'benchmarks.{name}').run()}\n\n{machine()}"
        RESULTS.write_text(put(RESULTS.read_text(encoding="utf-8"), section), encoding="utf-8")
