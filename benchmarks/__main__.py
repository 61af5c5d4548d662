"""Runs benchmarks and writes their sections of RESULTS.md, each as soon as it is measured.

python -m benchmarks              all of `make bench`: under 20 minutes on 2 cores
python -m benchmarks heads        only those named; heads takes half an hour, backbones an hour
"""

import os
import platform
import re
from argparse import ArgumentParser, RawDescriptionHelpFormatter
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
    "streams",
    "accuracy",
)
PACKAGES = ("vidpipe", "torch", "torchvision", "timm", "onnxruntime", "decord2", "av", "scikit-learn")


def machine() -> str:
    """Return the date, the processor and the versions, on one line."""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    cores = f"{os.cpu_count()} cores, {platform.machine()}"
    return f"{datetime.now(UTC):%Y-%m-%d}; {cores}; Python {platform.python_version()}; {versions}"


def put(document: str, section: str) -> str:
    """Return a document in which a section replaces the one with its title, or is added at the end."""
    head, *sections = re.split(r"^(?=## )", document, flags=re.MULTILINE)
    by_title = {one.split("\n", 1)[0]: one.strip() for one in sections}
    by_title[section.split("\n", 1)[0]] = section.strip()
    return "\n\n".join([head.strip(), *by_title.values()]) + "\n"


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("names", metavar="NAME", nargs="*", help="a module of benchmarks/", default=NAMES)
    for name in parser.parse_args().names:
        section = f"{import_module(f'benchmarks.{name}').run()}\n\n{machine()}"
        RESULTS.write_text(put(RESULTS.read_text(encoding="utf-8"), section), encoding="utf-8")
