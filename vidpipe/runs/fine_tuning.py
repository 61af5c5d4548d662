"""What a fine-tuning did and found: the frozen backbone beside the fine-tuned one, on the same videos."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vidpipe.runs.metrics import MIN_GROUPS_FOR_INTERVAL, bootstrap_interval

__all__ = ["FineTuning", "PairedTop1", "compare_top1"]


@dataclass(frozen=True)
class PairedTop1:
    """Top-1 of both backbones on the same videos."""

    frozen: float
    fine_tuned: float
    difference: float
    """Fine-tuned minus frozen."""
    interval: tuple[float, float] | None
    """95 % confidence interval of the difference, which is paired by video (bootstrap over groups); None with fewer
    than 5 groups."""
    num_videos: int

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the comparison from the values of metrics.json."""
        interval = values["interval"]
        return cls(**{**values, "interval": None if interval is None else (interval[0], interval[1])})


def compare_top1(frozen: NDArray[np.bool_], fine_tuned: NDArray[np.bool_], groups: Sequence[str]) -> PairedTop1:
    """Compare what two classifiers predict for the same videos.

    Args:
        frozen: (N,) whether the first predicts each video correctly.
        fine_tuned: (N,) the same of the second.
        groups: N names; see `bootstrap_interval`.

    Returns:
        The comparison.
    """
    difference = fine_tuned.astype(float) - frozen.astype(float)
    interval = None
    if len(set(groups)) >= MIN_GROUPS_FOR_INTERVAL:
        interval = bootstrap_interval(difference, groups, seed=0)
    return PairedTop1(
        float(frozen.mean()), float(fine_tuned.mean()), float(difference.mean()), interval, len(difference)
    )


@dataclass(frozen=True)
class FineTuning:
    """What a fine-tuning trained, how long it took, and what came of it."""

    kept: str
    """`fine-tuned` or `frozen`: the backbone of the run, the one with the higher top-1 on the validation set."""
    stages: tuple[str, ...]
    """The stages of the backbone that were trained."""
    num_parameters: int
    """Numbers of the backbone that were trained."""
    num_epochs: int
    best_epoch: int
    """The one with the lowest validation loss."""
    seconds: float
    """Of training, without decoding."""
    val: PairedTop1
    test: PairedTop1 | None
    """None where the run has no test set."""
    settings: Mapping[str, Any]
    """Of the fine-tuning, by name."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return what `as_dict` wrote.

        Args:
            values: from metrics.json.

        Returns:
            The record.

        Raises:
            KeyError: a value is missing.
            TypeError: a value is of another type.
        """
        test = None if values["test"] is None else PairedTop1.from_dict(values["test"])
        its = {"val": PairedTop1.from_dict(values["val"]), "test": test, "stages": tuple(values["stages"])}
        return cls(**{**values, **its})

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for metrics.json."""
        return asdict(self)

    @property
    def compared(self) -> dict[str, PairedTop1]:
        """The comparisons by subset, the validation set first."""
        return {"val": self.val} | ({} if self.test is None else {"test": self.test})

    @property
    def verdict(self) -> str:
        """Which backbone the run keeps, and why, in a sentence without a full stop."""
        kept, other = ("fine-tuned", "frozen") if self.kept == "fine-tuned" else ("frozen", "fine-tuned")
        tops = {"fine-tuned": self.val.fine_tuned, "frozen": self.val.frozen}
        if tops[kept] == tops[other]:
            why = f"both have a top-1 of {tops[kept]:.3f} on the validation set, and its log loss is lower"
        else:
            why = f"its top-1 on the validation set is {tops[kept]:.3f}, that of the {other} one {tops[other]:.3f}"
        return f"the {kept} backbone is kept: {why}"

    @property
    def caveats(self) -> tuple[str, ...]:
        """Warnings about the comparison."""
        found = []
        if self.kept == "frozen":
            found.append("fine-tuning did not help on the validation set: this run has the frozen backbone")
        if self.test is not None and self.test.interval is not None:
            low, high = self.test.interval
            if low <= 0 <= high:
                found.append(
                    f"{self.test.num_videos} test videos do not show which backbone is better: the difference of "
                    f"top-1 is {self.test.difference:+.3f} (95 % CI {low:+.3f} to {high:+.3f})"
                )
        return tuple(found)
