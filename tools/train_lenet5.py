"""Trains LeNet-5 on scikit-learn's handwritten digits and writes the weights that vidpipe ships.

    python -m tools.train_lenet5

Uses 1,797 digits of 8 × 8 pixels, resized to 32 × 32 by the backbone's own preprocessing. A quarter of each class is
the test set; nothing is tuned on it. Takes a minute on one core.
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import NamedTuple

import numpy as np
import safetensors.torch
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from vidpipe.backbones.lenet import DigitClassifier
from vidpipe.backbones.table import find_backbone
from vidpipe.backbones.weights import SHIPPED
from vidpipe.video.resize import resize_and_crop

SPEC = find_backbone("lenet5")
WEIGHTS = SHIPPED / SPEC.weights.removeprefix("shipped:")
NUM_EPOCHS, BATCH_SIZE, MAX_SHIFT = 60, 32, 3


class Digits(NamedTuple):
    """Digits with their labels."""

    frames: Tensor
    """(N, 3, 32, 32) uint8 RGB."""
    labels: Tensor
    """(N,) int64."""


def digits() -> tuple[Digits, Digits]:
    """Return the training set and the test set."""
    pictures, labels = load_digits(return_X_y=True)
    gray = np.rint(pictures.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    frames = resize_and_crop(gray.repeat(3, axis=3), SPEC.preprocessing)  # (N, 8, 8, 3) -> (N, 3, 32, 32)
    parts = train_test_split(frames, labels, test_size=0.25, random_state=0, stratify=labels)
    train_frames, test_frames, train_labels, test_labels = map(torch.from_numpy, parts)
    return Digits(train_frames, train_labels), Digits(test_frames, test_labels)


def pixels(frames: Tensor) -> Tensor:
    """(N, 3, 32, 32) uint8 -> normalised float"""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (SPEC.preprocessing.mean, SPEC.preprocessing.std))
    return (frames.float() / 255 - mean) / std


def shifted(batch: Tensor) -> Tensor:
    """Shift each picture at random by up to MAX_SHIFT pixels: (N, 3, 32, 32) -> (N, 3, 32, 32)"""
    shifts = torch.randint(-MAX_SHIFT, MAX_SHIFT + 1, (len(batch), 2)).tolist()
    moved = [
        torch.roll(picture, (down, right), dims=(1, 2)) for picture, (down, right) in zip(batch, shifts, strict=True)
    ]
    return torch.stack(moved)


def train(chosen: Digits) -> DigitClassifier:
    """Train a classifier of digits; every call returns the same one."""
    torch.manual_seed(0)
    model = DigitClassifier()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
    num_batches = len(chosen.labels) // BATCH_SIZE
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=NUM_EPOCHS * num_batches)
    inputs = pixels(chosen.frames)
    for _ in range(NUM_EPOCHS):
        for batch in torch.randperm(len(inputs))[: num_batches * BATCH_SIZE].view(num_batches, BATCH_SIZE):
            loss = nn.functional.cross_entropy(model(shifted(inputs[batch])), chosen.labels[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.inference_mode()
def accuracy(model: DigitClassifier, chosen: Digits) -> float:
    """Return the fraction of digits that are classified correctly."""
    return float((model(pixels(chosen.frames)).argmax(dim=1) == chosen.labels).float().mean())


if __name__ == "__main__":
    ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter).parse_args()
    to_train, to_test = digits()
    classifier = train(to_train)
    safetensors.torch.save_file(classifier.state_dict(), WEIGHTS)
    print(f"train {accuracy(classifier, to_train):.4f}, test {accuracy(classifier, to_test):.4f}: {WEIGHTS}")
