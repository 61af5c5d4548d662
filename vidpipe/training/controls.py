"""The background check: the classifiers of a training on altered test videos, to see what they go by."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vidpipe.config import TrainConfig
from vidpipe.datasets.sequences import SequenceDataset, Subsets
from vidpipe.datasets.streams import Stores, kind_of
from vidpipe.errors import LabelsError, UsageError, count_of, first_few
from vidpipe.features.key import FeatureKey
from vidpipe.features.store import FeatureStore
from vidpipe.heads.fusion import Fusion
from vidpipe.heads.members import baseline_members
from vidpipe.records import LabeledVideo
from vidpipe.runs.background_check import CONTROLS, BackgroundCheck, ControlScore
from vidpipe.runs.metrics import MIN_GROUPS_FOR_INTERVAL, bootstrap_interval
from vidpipe.training.fusion import fit_classifier
from vidpipe.training.scoring import score_classifiers

__all__ = ["BackgroundExam", "MaskedStores", "freeze", "shuffle", "still_features"]

STILL_PIXELS = 96
"""Side of the still picture whose motion is described: any size gives the same."""
MASK_FIELD = "regions"
"""The field of a store's key that says what is painted out."""
_KINDS = {"without_people": "background", "only_people": "mask"}
"""By control, the `--regions` of its stores."""
Alter = Callable[[SequenceDataset], SequenceDataset]


@dataclass(frozen=True)
class MaskedStores:
    """Features of the same videos in which a part of the picture is painted out; empty for none."""

    without_people: Sequence[FeatureStore] = ()
    """The people are painted out."""
    only_people: Sequence[FeatureStore] = ()
    """All but the people is painted out."""

    def match(self, stores: Mapping[str, FeatureStore], videos: Sequence[LabeledVideo]) -> dict[str, Stores]:
        """Find the masked store of each stream.

        Args:
            stores: by stream, what the training learns from.
            videos: its videos.

        Returns:
            By control, the stores by stream.

        Raises:
            UsageError: a stream has no masked store, or several; the message says how the keys differ.
            LabelsError: a masked store lacks a video.
        """
        found: dict[str, Stores] = {}
        for control, masked in vars(self).items():
            if masked:
                option = f"--{control.replace('_', '-')}"
                for one in masked:
                    _check_kind(one, _KINDS[control], option)
                found[control] = {name: _match(option, name, store, masked, videos) for name, store in stores.items()}
        return found


def _check_kind(store: FeatureStore, kind: str, option: str) -> None:
    """Refuse a store that `extract --regions` made with other regions; videos may be painted by another program."""
    regions = store.key.regions
    if regions is not None and regions.get("kind") != kind:
        raise UsageError(f"{option}: {store.path} is of --regions {regions.get('kind')}; give one of --regions {kind}")


def _match(
    option: str, stream: str, store: FeatureStore, masked: Sequence[FeatureStore], videos: Sequence[LabeledVideo]
) -> FeatureStore:
    """The masked store of one stream, which has every video."""
    others = [one for one in masked if one.path.resolve() != store.path.resolve()]
    fitting = [one for one in others if _unmasked(one.key) == _unmasked(store.key)]
    if len(fitting) != 1:
        contrasts = ["{} holds {} where {} are needed".format(one.path, *one.key.contrast(store.key)) for one in others]
        problem = f"several stores fit: {first_few([str(one.path) for one in fitting])}" if fitting else "no store fits"
        raise UsageError(
            f"{option}: {problem} the stream {stream}{': ' * bool(contrasts)}{'; '.join(contrasts)}. Extract the same "
            "videos with the same settings, and with the people or all else painted out, into one store"
        )
    missing = [video.video_id for video in videos if video.video_id not in fitting[0]]
    if missing:
        raise LabelsError(
            f"{option}: {fitting[0].path} lacks {count_of(len(missing), 'video')} of the training: "
            f"{first_few(missing)}; complete it with `vidpipe extract`"
        )
    return fitting[0]


def _unmasked(key: FeatureKey) -> dict[str, object]:
    return {name: value for name, value in vars(key).items() if name != MASK_FIELD}


@dataclass
class BackgroundExam:
    """Collects what classifiers name correctly of their test videos, altered and as they are.

    Each control alters the test videos of all streams. A classifier is used as it is; only for `one_frame` a linear
    classifier is fitted.
    """

    stores: Mapping[str, FeatureStore]
    """By stream."""
    masked: Mapping[str, Stores]
    """From `MaskedStores.match`."""
    config: TrainConfig
    evaluation_set: str
    """The test sets: a key of `vidpipe.runs.run.EVALUATION_SETS`."""
    _correct: dict[str, dict[LabeledVideo, list[bool]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list)), init=False
    )
    """By control, `""` for the videos as they are; then by video, for each test set that held it."""

    def examine(self, classifier: Fusion, subsets: Subsets) -> None:
        """Test the classifier of a fold on its altered test videos.

        Args:
            classifier: fitted to `train`.
            subsets: `train`, `val` and `test`.
        """
        self._examine(classifier, subsets, "test")

    def _examine(self, classifier: Fusion, subsets: Subsets, tested: str) -> None:
        dataset = subsets[tested]
        self._note("", classifier, dataset)
        for name, alter in self._alterations().items():
            self._note(name, classifier, alter(dataset))
        pictures = [name for name, kind in dataset.kinds.items() if kind in ("image", "clip")]
        if pictures:
            middle = {name: _middle_frames(one.stream(pictures[0])) for name, one in subsets.items()}
            linear = fit_classifier(baseline_members(pictures[:1]), middle, self.config).fusion
            self._note("one_frame", linear, middle[tested])

    def finish(self, classifier: Fusion, subsets: Subsets) -> BackgroundCheck:
        """Return what all test sets together say.

        Args:
            classifier: the run's own, fitted to `train`: it is examined unless the test sets are those of folds.
            subsets: `train`, `val` and `test`.

        Returns:
            Top-1 and its intervals.
        """
        if self.evaluation_set != "folds":
            self._examine(classifier, subsets, self.evaluation_set)
        shares = {
            name: np.array([np.mean(correct) for correct in by_video.values()])
            for name, by_video in self._correct.items()
        }
        videos = list(self._correct[""])
        units = [video.unit for video in videos]
        whole = shares.pop("")
        labels = Counter(video.label for video in videos)
        return BackgroundCheck(
            self.evaluation_set,
            len(videos),
            chance=max(labels.values()) / len(videos),
            whole=_score(whole, whole, units),
            controls={name: _score(shares[name], whole, units) for name in CONTROLS if name in shares},
        )

    def _alterations(self) -> dict[str, Alter]:
        """By control, what is done to the test videos."""
        replaced = {name: partial(_replace, stores=stores) for name, stores in self.masked.items()}
        return {"frozen": partial(freeze, still=still_features(self.stores)), "shuffled": shuffle, **replaced}

    def _note(self, control: str, classifier: Fusion, dataset: SequenceDataset) -> None:
        scores = score_classifiers([classifier], dataset)[classifier.name]
        for video, correct in zip(dataset.videos, scores.correct, strict=True):
            self._correct[control][video].append(bool(correct))


def _score(correct: NDArray[np.float64], whole: NDArray[np.float64], units: Sequence[str]) -> ControlScore:
    """The score of (N,) shares of correct predictions by video, beside those on the videos as they are."""
    difference = correct - whole

    def interval(values: NDArray[np.float64]) -> tuple[float, float] | None:
        return bootstrap_interval(values, units, seed=0) if len(set(units)) >= MIN_GROUPS_FOR_INTERVAL else None

    return ControlScore(float(correct.mean()), interval(correct), float(difference.mean()), interval(difference))


# The alterations


def freeze(dataset: SequenceDataset, *, still: Mapping[str, Tensor]) -> SequenceDataset:
    """Repeat the middle row of each video.

    Args:
        dataset: the videos.
        still: by motion stream, the feature (D,) of a still picture, which all rows get.

    Returns:
        The videos, as long as before.
    """

    def alter(stream: str, video: LabeledVideo, rows: Tensor) -> Tensor:
        row = still[stream].to(rows) if stream in still else rows[len(rows) // 2]
        return row.repeat(len(rows), 1)  # (D,) -> (T, D)

    return dataset.altered(alter)


def still_features(stores: Mapping[str, FeatureStore]) -> dict[str, Tensor]:
    """Compute what a motion backbone sees of a still picture.

    Args:
        stores: by stream.

    Returns:
        By motion stream, (D,) float32.
    """
    from vidpipe.backbones.flow import FlowParameters, describe

    windows = np.zeros((1, 2, 3, STILL_PIXELS, STILL_PIXELS), np.uint8)
    return {
        name: torch.from_numpy(describe(windows, FlowParameters(**store.key.parameters or {}))[0])
        for name, store in stores.items()
        if kind_of(store.key) == "motion"
    }


def shuffle(dataset: SequenceDataset) -> SequenceDataset:
    """Put the rows of each video in a random order, the same in all streams with as many rows."""

    def alter(stream: str, video: LabeledVideo, rows: Tensor) -> Tensor:
        random = np.random.default_rng(crc32(video.video_id.encode(errors="surrogateescape")))
        return rows[torch.from_numpy(random.permutation(len(rows)))]

    return dataset.altered(alter)


def _middle_frames(dataset: SequenceDataset) -> SequenceDataset:
    return dataset.altered(lambda stream, video, rows: rows[len(rows) // 2 :][:1])


def _replace(dataset: SequenceDataset, *, stores: Stores) -> SequenceDataset:
    """The same videos with features of other stores."""
    return SequenceDataset(stores, dataset.videos, dataset.class_names)
