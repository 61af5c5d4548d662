"""Which videos are compared for duplicates: nearest by the mean feature or by a learned embedding; exactly or by faiss.

    python -m benchmarks.shortlists             both
    python -m benchmarks.shortlists SCRATCH     keep copies, store and embedding in SCRATCH, and use what is there

Embedding: 14 clips of the fight set with their ten copies (`benchmarks.copies`), among 94 clips, on whose labels the
embedding is trained. faiss: 200,000 drawn vectors of 1,280 numbers with 100 independent directions, and altered copies.
"""

import csv
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

import vidpipe
from benchmarks.clips import labelled_sets
from benchmarks.copies import write_copies
from vidpipe.features.store import FeatureStore
from vidpipe.search.embedded import EmbeddedVideos
from vidpipe.search.embedding import Embedding
from vidpipe.similarity import shortlist
from vidpipe.similarity.duplicates import find_pairs
from vidpipe.similarity.sequences import read_index
from vidpipe.similarity.shortlist import nearest

NUM_COPIED, NUM_OTHERS = 14, 80
NUMBERS = (3, 5, 10, 20, 40)
NUM_VECTORS, DIM, NUM_DIRECTIONS, NUM_QUERIES, NUM_NEAREST = 200_000, 1280, 100, 1000, 41
ALTERATIONS = (0.5, 0.8, 1.2)
LISTS_A_ROOT = 4
"""Twice those of the package: so an index of 200,000 looks into the same share of vectors as one of a million."""
MIN_PRECISION = 0.99

Floats = NDArray[np.float32]


def open_copies(scratch: Path) -> tuple[FeatureStore, Embedding]:
    """Write the copies, extract them with the clips, and train the embedding on the clips, unless they are there."""
    labels = next(iter(labelled_sets(scratch).values()))
    with labels.open(encoding="utf-8") as stream:
        rows = {row["video"]: row for row in csv.DictReader(stream)}
    copied = sorted(random.Random(0).sample(sorted(rows), 40))[: 2 * NUM_COPIED : 2]
    others = random.Random(1).sample(sorted(rows.keys() - set(copied)), NUM_OTHERS)
    for video_id in (*copied, *others):
        link = scratch / "sub/clips" / video_id
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to(labels.parent / video_id)
    write_copies([labels.parent / video_id for video_id in copied], scratch / "sub/copies")
    vidpipe.extract(scratch / "sub", scratch / "uniform", backbone="efficientnet_lite0", device="cpu")
    lines = [f"clips/{one},{rows[one]['label']},{rows[one]['group']}" for one in (*copied, *others)]
    (scratch / "labels.csv").write_text("\n".join(["video,label,group", *lines]), encoding="utf-8")
    if not (scratch / "emb").exists():
        vidpipe.train_embedding(scratch / "uniform", scratch / "emb", labels=scratch / "labels.csv")
    return FeatureStore.open(scratch / "uniform"), Embedding.open(scratch / "emb")


def measure_embedding(scratch: Path) -> Iterator[str]:
    """Yield rows of the table of duplicates by shortlist."""
    store, embedding = open_copies(scratch)
    embedded = EmbeddedVideos(embedding, {next(iter(embedding.keys)): store})
    index, vectors = read_index(store, embedded.ids), embedded.vectors.numpy()
    stems = [Path(video_id).stem for video_id in index.ids]
    pairs = list(combinations(range(len(stems)), 2))
    true = {(one, other) for one, other in pairs if stems[one] == stems[other]}
    for number in NUMBERS:
        cells = []
        for by in (None, vectors):
            found = {(pair.one, pair.other) for pair in find_pairs(index, num_nearest=number, vectors=by)}
            cells.append(f"{len(found & true) / len(true):.3f}, {len(found & true) / max(1, len(found)):.3f}")
        yield f"| {number} | {' | '.join(cells)} |"
    order = sorted(pairs, key=lambda pair: -float(vectors[pair[0]] @ vectors[pair[1]]))
    hits = np.cumsum([pair in true for pair in order])
    enough = np.flatnonzero(hits / np.arange(1, len(order) + 1) >= MIN_PRECISION)
    recall = hits[enough[-1]] / len(true) if len(enough) else 0.0
    yield f"\nThe cosine of the embedding alone: recall {recall:.3f} at a precision of {MIN_PRECISION}."


def _unit(rows: Floats) -> Floats:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def measure_faiss() -> Iterator[str]:
    """Yield rows of the table of copies that a product and an index find."""
    draw = np.random.default_rng(0)
    basis = draw.normal(size=(NUM_DIRECTIONS, DIM)) / np.sqrt(1 + np.arange(NUM_DIRECTIONS))[:, None]
    drawn = (draw.normal(size=(NUM_VECTORS, NUM_DIRECTIONS)) @ basis).astype(np.float32)
    noise = 0.3 * np.linalg.norm(drawn, axis=1).mean() / np.sqrt(DIM)
    vectors = _unit(drawn + noise * draw.standard_normal(drawn.shape, dtype=np.float32))
    chosen = draw.choice(NUM_VECTORS, NUM_QUERIES, replace=False)
    altered = []
    for alteration in ALTERATIONS:
        directions = (draw.normal(size=(NUM_QUERIES, NUM_DIRECTIONS)) @ basis).astype(np.float32)
        altered.append(_unit(vectors[chosen] + alteration * _unit(directions)))
    cosines = [f"{(queries * vectors[chosen]).sum(axis=1).mean():.2f}" for queries in altered]
    yield f"| shortlist | processor time | {' | '.join(cosines)} |\n|---|---|{'---|' * len(cosines)}"
    for name, max_products in (("product", shortlist.MAX_EXACT_PRODUCTS), ("index of faiss, with building", 0)):
        start = time.process_time()
        with patch.multiple(shortlist, MAX_EXACT_PRODUCTS=max_products, LISTS_A_ROOT=LISTS_A_ROOT):
            found = np.concatenate([block for _, block, _ in nearest(np.concatenate(altered), vectors, NUM_NEAREST)])
        is_found = (found == np.tile(chosen, len(altered))[:, None]).any(axis=1)
        shares = is_found.reshape(len(altered), NUM_QUERIES).mean(axis=1)
        yield f"| {name} | {time.process_time() - start:.0f} s | {' | '.join(f'{share:.3f}' for share in shares)} |"


def run(scratch: Path | None = None) -> str:
    """Measure, and return a section of RESULTS.md."""
    lines = ["| compared with | mean feature: recall, precision | embedding: recall, precision |", "|---|---|---|"]
    with tempfile.TemporaryDirectory() as temporary:
        lines += _shown(measure_embedding(scratch or Path(temporary)))
    lines += ["", "Copies found among the nearest 41, by the cosine of a copy with its original:", ""]
    lines += _shown(measure_faiss())
    return "## Shortlists (`benchmarks/shortlists.py`)\n\n" + "\n".join(lines)


def _shown(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        print(line, file=sys.stderr, flush=True)
        yield line


if __name__ == "__main__":
    print(run(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
