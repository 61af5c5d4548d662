"""A run's classifier, applied to the feature sequences of videos, or to parts of them."""

from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor

from vidpipe.datasets.people import split_people
from vidpipe.datasets.sequences import input_rows, join_cells, pad
from vidpipe.features.key import FeatureKey
from vidpipe.heads.fusion import Fusion
from vidpipe.records import FeatureSequence
from vidpipe.runs.run import Run

__all__ = ["SequenceClassifier"]

_LEAST = 1e-30
"""The smallest probability whose logarithm is taken."""


class SequenceClassifier:
    """A classifier over the rows of a video, or of parts of it.

    Args:
        fusion: fitted.
        keys: by stream, the key of its features.
        device: where it runs.
    """

    def __init__(self, fusion: Fusion, keys: Mapping[str, FeatureKey], device: torch.device) -> None:
        self.fusion, self.keys = fusion.to(device).eval(), keys
        self._device = device

    @classmethod
    def of_run(cls, run: Run, device: torch.device) -> Self:
        """Load the classifier of a run.

        Args:
            run: the run.
            device: where it runs.

        Returns:
            The classifier.

        Raises:
            RunError: the run's model cannot be loaded.
        """
        return cls(run.load_classifiers(device)[0], run.keys, device)

    def rows(self, streams: Mapping[str, FeatureSequence]) -> dict[str, Tensor]:
        """Return the rows of a video in each stream, (T, C · D) each, as stored.

        Args:
            streams: the video's features.

        Returns:
            The rows by stream.

        Raises:
            StoreError: the rows of a stream are not a whole number of pictures.
        """
        return {
            name: join_cells(sequence.features, self.keys[name].num_cells, owner=sequence.video_id)
            for name, sequence in streams.items()
        }

    def classify(self, streams: Mapping[str, FeatureSequence]) -> tuple[Tensor, dict[int, Tensor]]:
        """Classify a video, and each of its people.

        Args:
            streams: the video's features.

        Returns:
            (K,) the probabilities of the video: of several people, the mean of their log-probabilities; and by number
            those of each person.
        """
        people = split_people(streams)
        found = self.probabilities([self.rows(one) for one in people.values() or [streams]])  # (P, K)
        joined = found.clamp_min(_LEAST).log().mean(dim=0).softmax(dim=0) if len(found) > 1 else found[0]
        return joined, dict(zip(people, found, strict=False))

    @torch.inference_mode()
    def probabilities(self, parts: Sequence[Mapping[str, Tensor]]) -> Tensor:
        """Classify some videos, or parts of one, at once.

        Args:
            parts: N of them, each with its rows (T, C · D) by stream.

        Returns:
            (N, K) calibrated probabilities, on the CPU.
        """
        padded = {}
        for name, key in self.keys.items():
            features, lengths = pad([input_rows(part[name], key).float() for part in parts])  # (N, T, C · D), (N,)
            padded[name] = features.to(self._device), lengths
        probabilities: Tensor = self.fusion(padded).softmax(dim=1)
        return probabilities.cpu()
