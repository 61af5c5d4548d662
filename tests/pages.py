"""HTML pages, read back, and runs whose names mean something to a browser."""

from collections import Counter, defaultdict
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from tests.stores import make_sequence, make_store
from vidpipe.config import TrainConfig
from vidpipe.records import LabeledVideo
from vidpipe.stages.train import train

SCRIPT = "<script>alert(1)</script>"


IMAGE = "\"><img src=x onerror='alert(2)'>"


TURNED = "fi\u202eght & {{ 7 * 7 }}"


LABELS = (SCRIPT, IMAGE, TURNED)


VOID = {"meta", "img", "line", "polyline", "circle", "rect", "br", "input"}
"""Elements without an end; those of SVG close themselves."""


def train_run(folder: Path, labels: tuple[str, ...], num_videos: int, config: TrainConfig) -> Path:
    """A run on noise in which the labels show faintly: there are mistakes to report."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((len(labels), 8))
    sequences, videos = [], []
    for number in range(num_videos):
        index = number % len(labels)
        sequence = make_sequence(f"{labels[index]}/{number}.mp4", length=4, dim=8, seed=number)
        sequence.features[:] = centres[index] + 1.2 * random.standard_normal(8)
        sequences.append(sequence)
        group = f"<i>{number // len(labels) % 6}</i>"
        videos.append(LabeledVideo(sequence.video_id, labels[index], group=group))
    train(make_store(folder / "store", sequences), videos, folder / "run", config=config)
    return folder / "run"


class Page(HTMLParser):
    """A page's elements: `tables["per-class"]` is rows of cells' texts; `attributes` all names and values."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tables: defaultdict[str, list[list[str]]] = defaultdict(list)
        self.attributes: list[tuple[str, str, str]] = []
        self.tags: Counter[str] = Counter()
        self.text = ""
        self.open: list[str] = []
        self._table = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attributes]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self._table = dict(attributes).get("id") or f"table {self.tags[tag]}"
        elif tag == "tr":
            self.tables[self._table].append([])
        elif tag in ("td", "th"):
            self.tables[self._table][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, text: str) -> None:
        if {"script", "style"} & set(self.open):
            return
        self.text += text
        if {"td", "th"} & set(self.open):
            self.tables[self._table][-1][-1] += text
