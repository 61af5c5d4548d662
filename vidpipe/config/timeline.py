"""Settings of `vidpipe predict --timeline`."""

from dataclasses import dataclass

from vidpipe.config.setting import Config, setting

__all__ = ["TimelineConfig"]


@dataclass(frozen=True)
class TimelineConfig(Config):
    """Settings of `vidpipe predict --timeline`."""

    timeline: bool = setting(
        False, "Find segments of long videos, each with start, stop and label, instead of one label for each video."
    )
    window: float | None = setting(
        None,
        "Length of a window in seconds. [default: the median length of what the run learned from]",
        low=0,
        above=True,
    )
    stride: float | None = setting(
        None,
        "Seconds from the start of a window to the start of the next. [default: a quarter of the window]",
        low=0.01,
    )
    method: str = setting(
        "viterbi",
        "How segments are read off the classes' probabilities over time. viterbi: one label at a time, with a cost for "
        "each change. threshold: each class for itself, so that segments may overlap.",
        choices=("viterbi", "threshold"),
    )
    change_cost: float | None = setting(
        None,
        "viterbi: cost of a change of label within a shot, in nats of the evidence of one window. [default: what was "
        "best on the training videos, if their labels are intervals, else 0.5]",
        low=0,
    )
    high: float = setting(0.5, "threshold: a segment has this probability somewhere.", low=0, high=1)
    low: float = setting(0.3, "threshold: a segment lasts while its class has this probability.", low=0, high=1)
    max_overlap: float = setting(
        0.5,
        "threshold: of segments of two classes whose temporal IoU exceeds this, keep the more probable.",
        low=0,
        high=1,
    )
    min_segment: float = setting(0.0, "Leave out segments that are shorter than this, in seconds.", low=0)
    cuts: bool = setting(
        True, "End windows at cuts, found where the features of neighbouring frames of an image model differ most."
    )
    curves: bool = setting(False, "json: give the probability of each class over time too.")
    follow: bool = setting(
        False,
        "Read one file that is still recorded, or a folder into which a camera puts file after file, and print each "
        "segment as soon as it is certain, as JSON.",
    )
    idle: float = setting(30.0, "follow: stop after this number of seconds without anything new.", low=0, above=True)
    write_video: str | None = setting(
        None,
        "Write an H.264 copy of each video into this folder, with its label or its segments burnt in, a box around "
        "each person of --regions tracks, and its sound.",
        is_path=True,
        metavar="DIR",
    )
