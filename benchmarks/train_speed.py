"""An epoch of LSTM training, compared with a plain loop: a DataLoader that opens one .npy file per video.

    python -m benchmarks.train_speed

Both have the same head, batch size and number of steps, and files in the page cache. The loop uses 0 or 2 workers,
whichever is faster. Loading features into batches is also measured alone, because on a CPU the LSTM's arithmetic is
most of an epoch. An epoch uses a sample of the videos, the same in each round.
"""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

from benchmarks.store_reading import (
    DIM,
    NUM_CLASSES,
    NUM_STEPS,
    NUM_VIDEOS,
    read_for_training,
    seconds,
    spread,
    video_name,
    write_store,
)
from vidpipe.config import TrainConfig
from vidpipe.datasets.sequences import SequenceDataset, pad
from vidpipe.features.store import FeatureStore
from vidpipe.heads.heads import Head, build_head
from vidpipe.training.fit import make_optimiser, train_epoch

BATCH_SIZE = 32
CONFIG = TrainConfig(
    head="lstm",
    motion="raw",
    unit_frames=False,
    device="cpu",
    batch_size=BATCH_SIZE,
    subsequence=1,
    components=0,
    jitter=0,
)
NUM_SAMPLED, NUM_ROUNDS = 1280, 3
WORKERS = (0, 2)
Batch = tuple[Tensor, Tensor, Tensor]


class NpyFiles(Dataset[tuple[Tensor, int]]):
    """Reads one .npy file per video, as the plain loop does."""

    def __init__(self, paths: Sequence[Path], classes: Sequence[int]) -> None:
        self._paths, self._classes = paths, classes

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        return torch.from_numpy(np.load(self._paths[number])), self._classes[number]


def collate(videos: list[tuple[Tensor, int]]) -> Batch:
    """(N, T, D), (N,), (N,)"""
    features, lengths = pad([sequence for sequence, _ in videos])
    return features, lengths, torch.tensor([class_index for _, class_index in videos])


def plain_loader(files: NpyFiles, workers: int) -> "DataLoader[Any]":
    return DataLoader(files, BATCH_SIZE, shuffle=True, num_workers=workers, collate_fn=collate)


def plain_epoch(head: Head, optimiser: torch.optim.Optimizer, loader: Iterable[Batch]) -> None:
    """Train an epoch as tutorials do."""
    head.train()
    for features, lengths, class_index in loader:
        optimiser.zero_grad()
        loss = cross_entropy(head(features, lengths), class_index)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimiser.step()
        loss.item()


class Contest:
    """vidpipe and the plain loop over the same videos, each with its own head."""

    def __init__(self, dataset: SequenceDataset, files: NpyFiles) -> None:
        self._dataset, self._files = dataset, files
        self._head, self._plain_head = (build_head("lstm", DIM, NUM_CLASSES, CONFIG) for _ in range(2))
        self._optimiser = make_optimiser(self._head, CONFIG)
        self._plain_optimiser = torch.optim.AdamW(self._plain_head.parameters(), lr=CONFIG.lr)

    def epoch(self) -> float:
        """Return the seconds of vidpipe's epoch."""
        order = torch.randperm(len(self._dataset))
        return seconds(lambda: train_epoch(self._head, self._dataset, self._optimiser, CONFIG, order))

    def batches(self) -> float:
        """Return the seconds of vidpipe's batches alone."""
        order = torch.randperm(len(self._dataset))
        return seconds(lambda: drain(self._dataset.batches(BATCH_SIZE, order=order)))

    def plain_epoch(self, workers: int) -> float:
        """Return the seconds of the loop's epoch."""
        loader = plain_loader(self._files, workers)
        return seconds(lambda: plain_epoch(self._plain_head, self._plain_optimiser, loader))

    def plain_batches(self, workers: int) -> float:
        """Return the seconds of the loop's batches alone."""
        return seconds(lambda: drain(plain_loader(self._files, workers)))

    def round(self) -> tuple[float, float, float, float]:
        """Return the seconds of the loop's epoch and vidpipe's, and of the loop's batches and vidpipe's."""
        plain_batches = min(self.plain_batches(workers) for workers in WORKERS)
        plain_epoch = min(self.plain_epoch(workers) for workers in WORKERS)
        return plain_epoch, self.epoch(), plain_batches, self.batches()


def drain(batches: Iterable[object]) -> None:
    for _ in batches:
        pass


def write_npy(store: FeatureStore, folder: Path, num_videos: int) -> Iterator[Path]:
    """Write the features of the store's first videos for the plain loop."""
    folder.mkdir()
    for number in range(num_videos):
        path = folder / f"{number:05}.npy"
        np.save(path, store[video_name(number)].features)
        yield path


def run(num_videos: int = NUM_VIDEOS, num_sampled: int = NUM_SAMPLED, num_rounds: int = NUM_ROUNDS) -> str:
    """Measure, and return a section of RESULTS.md."""
    with tempfile.TemporaryDirectory() as scratch:
        store = write_store(Path(scratch, "store"), num_videos)
        paths = list(write_npy(store, Path(scratch, "npy"), num_sampled))
        everything = read_for_training(store.path)
        dataset = everything.select(everything.video_ids[:: num_videos // num_sampled][:num_sampled])
        contest = Contest(dataset, NpyFiles(paths, [number % NUM_CLASSES for number in range(num_sampled)]))
        rounds = [contest.round() for _ in range(1 + num_rounds)][1:]  # the first one warms up
    epochs = [plain / ours for plain, ours, _, _ in rounds]
    batches = [plain / ours for _, _, plain, ours in rounds]
    ours, ours_batches = spread([ours for _, ours, _, _ in rounds]), spread([ours for *_, ours in rounds], 3)
    return (
        "## An epoch of LSTM training, compared with one .npy file per video (`benchmarks/train_speed.py`)\n\n"
        f"{num_sampled} of {num_videos} videos of {NUM_STEPS} × {DIM} float32, batches of {BATCH_SIZE}, the "
        f"LSTM, CPU; the loop with {' or '.join(map(str, WORKERS))} workers, whichever is faster; median of "
        f"{num_rounds} rounds, minimum and maximum.\n\n"
        "| | the loop's time / vidpipe's | vidpipe, s |\n|---|---|---|\n"
        f"| whole epoch, LSTM and optimiser included | {spread(epochs)} | {ours} |\n"
        f"| features into batches alone | {spread(batches, 1)} | {ours_batches} |"
    )


if __name__ == "__main__":
    print(run())
