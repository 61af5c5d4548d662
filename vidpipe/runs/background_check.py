"""What the background check of a training found: top-1 on altered videos, and in words what that says."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

__all__ = ["CONTROLS", "BackgroundCheck", "ControlScore"]

MAX_LOSS = 0.05
"""Of top-1, if a control is to count as good as the videos as they are."""


@dataclass(frozen=True)
class _Words:
    """How a control is described."""

    title: str
    """Where top-1 comes from: `from one frozen frame`."""
    at_chance: str
    """What it means if top-1 is at chance."""
    in_between: str
    """What it means if top-1 is above chance and below that on the videos as they are."""
    as_good: str
    """What it means if top-1 is not below that on the videos as they are."""
    shows_place: bool = False
    """Whether top-1 above chance says that the place, not the action, is learned."""


CONTROLS: Mapping[str, _Words] = {
    "frozen": _Words(
        "from one frozen frame",
        "it needs what changes over time",
        "a part of what it has learned is what one frame shows: the place, or a pose",
        "it has learned what one frame shows: the place, or a pose",
        shows_place=True,
    ),
    "one_frame": _Words(
        "a linear classifier that learns from one frame of each video",
        "nothing shows that one frame gives the class away",
        "one frame gives the class away in part: by the place, or by a pose",
        "one frame is enough on these videos, and they do not show that motion was learned",
    ),
    "shuffled": _Words(
        "with the frames in random order",
        "it needs the order of the frames",
        "it uses the order of the frames, and more than the order",
        "the order of the frames does not matter to it",
    ),
    "without_people": _Words(
        "with the people painted out",
        "it needs the people",
        "it has learned the place in part",
        "it has learned the place",
        shows_place=True,
    ),
    "only_people": _Words(
        "with all but the people painted out",
        "it needs the place",
        "the people are a part of what it has learned",
        "the people are enough",
    ),
}
"""The ways in which videos are altered, in the order of the report."""


@dataclass(frozen=True)
class ControlScore:
    """Top-1 of a control."""

    top1: float
    interval: tuple[float, float] | None
    """95 % confidence interval (bootstrap over groups); None with fewer than 5 groups."""
    difference: float
    """From top-1 on the same videos as they are."""
    difference_interval: tuple[float, float] | None
    """95 % confidence interval of the difference, which is paired by video (bootstrap over groups)."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the score from the values of metrics.json.

        Args:
            values: the fields by name.

        Returns:
            The score.

        Raises:
            KeyError: a value is missing.
            TypeError: a value is of another type.
        """
        ends = {name: values[name] and tuple(values[name]) for name in ("interval", "difference_interval")}
        return cls(float(values["top1"]), difference=float(values["difference"]), **ends)


@dataclass(frozen=True)
class BackgroundCheck:
    """Top-1 of a run's classifier on its test videos, altered and as they are."""

    evaluation_set: str
    """A key of `vidpipe.runs.run.EVALUATION_SETS`."""
    num_videos: int
    chance: float
    """The share of the most frequent class in these videos."""
    whole: ControlScore
    """Of the videos as they are."""
    controls: Mapping[str, ControlScore]
    """By name, a key of `CONTROLS`."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for metrics.json."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the check that `as_dict` wrote.

        Args:
            values: the fields by name; controls that this vidpipe does not know are left out.

        Returns:
            The check.

        Raises:
            KeyError: a value is missing.
            TypeError: a value is of another type.
        """
        scores = {
            name: ControlScore.from_dict(values["controls"][name]) for name in CONTROLS if name in values["controls"]
        }
        whole = ControlScore.from_dict(values["whole"])
        return cls(values["evaluation_set"], int(values["num_videos"]), float(values["chance"]), whole, scores)

    @property
    def sentences(self) -> dict[str, str]:
        """By control, what it found: `with the people painted out it still names 61 % …: it has learned the place`."""
        return {name: self._sentence(name) for name in self.controls}

    @property
    def caveats(self) -> tuple[str, ...]:
        """The sentences that say that the place is learned."""
        return tuple(
            sentence
            for name, sentence in self.sentences.items()
            if CONTROLS[name].shows_place and self._outcome(name) in ("in_between", "as_good")
        )

    def _sentence(self, name: str) -> str:
        words, score, outcome = CONTROLS[name], self.controls[name], self._outcome(name)
        still = "still " * (outcome in ("in_between", "as_good") and name != "one_frame")
        subject = "names" if name == "one_frame" else f"it {still}names"
        interval = "" if score.interval is None else "95 % CI {:.0f} to {:.0f} %; ".format(*_percents(score.interval))
        beside = f"{interval}{_percent(self.whole.top1)} of the videos as they are; chance {_percent(self.chance)}"
        return f"{words.title} {subject} {_percent(score.top1)} ({beside}): {_meaning(words, outcome)}"

    def _outcome(self, name: str) -> str:
        """`at_chance`, `in_between` or `as_good`; else why the control says nothing: `few_groups`, …"""
        score = self.controls[name]
        if score.interval is None or score.difference_interval is None or self.whole.interval is None:
            return "few_groups"
        if self.whole.interval[0] <= self.chance and name != "one_frame":
            return "whole_at_chance"
        is_at_chance, may_be_equal = score.interval[0] <= self.chance, score.difference_interval[1] >= 0
        if is_at_chance:
            return "unclear" if may_be_equal else "at_chance"
        return "as_good" if may_be_equal and score.difference >= -MAX_LOSS else "in_between"


_NO_VERDICT = {
    "few_groups": "too few groups of videos for an interval, so this says nothing",
    "whole_at_chance": "it does no better than chance on the videos as they are, so this says nothing",
    "unclear": "too few videos to say whether this is chance or as good as the videos as they are",
}


def _meaning(words: _Words, outcome: str) -> str:
    return _NO_VERDICT.get(outcome) or str(getattr(words, outcome))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _percents(interval: tuple[float, float]) -> tuple[float, float]:
    return 100 * interval[0], 100 * interval[1]
