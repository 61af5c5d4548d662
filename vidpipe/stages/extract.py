"""Stage 1: videos -> features, in a store for each stream; what is stored already is skipped."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

from vidpipe.backbones.batching import Utilisation
from vidpipe.backbones.stream import WEIGHTS_NOT_READ, Stream, resolve_streams
from vidpipe.backbones.weights import WeightsFile
from vidpipe.config import ExtractConfig
from vidpipe.errors import InterruptedExtractionError, count_of
from vidpipe.execution.executor import connected, extract_videos
from vidpipe.execution.progress import ExtractProgress
from vidpipe.features.inventory import FileChanges, Reused, follow_files
from vidpipe.features.key import FeatureKey
from vidpipe.features.locks import WHOLE, Part
from vidpipe.features.planning import ExtractionPlan, plan_extraction, skip_reasons
from vidpipe.features.store import FeatureStore
from vidpipe.features.streams import place_stores
from vidpipe.records import VideoFailure, VideoFile
from vidpipe.regions.finder import RegionFinder
from vidpipe.regions.pose import PoseFinder
from vidpipe.video.decoding import choose_decoder

__all__ = ["ExtractSummary", "StreamSummary", "extract", "preview"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StreamSummary:
    """What an extraction did to the store of one stream."""

    store_path: Path
    num_stored: int
    num_skipped: int
    """Videos that were stored already."""
    failures: tuple[VideoFailure, ...]
    """Videos that failed in this run."""
    known_failures: tuple[VideoFailure, ...]
    """Videos that failed in an earlier run and were not retried."""
    num_replaced: int = 0
    """Of the stored videos: those that replace an older version."""
    reused: tuple[Reused, ...] = ()
    """Videos stored without decoding: a file of the same content was stored under another id."""
    moved: tuple[str, ...] = ()
    """Old ids of moved files, which were dropped."""
    gone: tuple[str, ...] = ()
    """Stored videos of these folders whose files no longer exist."""


@dataclass(frozen=True)
class ExtractSummary:
    """What an extraction did."""

    streams: Mapping[str, StreamSummary]
    """By stream."""
    num_stored: int
    """Videos that were decoded and stored."""
    num_skipped: int
    """Videos that all streams had already."""
    num_frames: int
    """Rows of these videos, of all streams, without the cells of a grid."""
    seconds: float
    utilisation: Utilisation

    @property
    def failures(self) -> tuple[VideoFailure, ...]:
        """Videos that failed in this run, each once."""
        return _each_once(failure for stream in self.streams.values() for failure in stream.failures)

    @property
    def known_failures(self) -> tuple[VideoFailure, ...]:
        """Videos that failed in an earlier run and were not retried, each once."""
        return _each_once(failure for stream in self.streams.values() for failure in stream.known_failures)


def _each_once(failures: Iterable[VideoFailure]) -> tuple[VideoFailure, ...]:
    return tuple({failure.video_id: failure for failure in failures}.values())


def extract(
    videos: Sequence[VideoFile],
    store_path: Path,
    *,
    config: ExtractConfig,
    part: Part = WHOLE,
    force: bool = False,
    retry_failed: bool = False,
    on_progress: Callable[[ExtractProgress], None] = lambda progress: None,
) -> ExtractSummary:
    """Extract the features of videos, with each backbone into its own store; what is stored already is skipped.

    A video is decoded once, for all the streams that lack it. The features of a moved file are stored under its new id
    without decoding it. Its old id is dropped, except with a `part`: other processes may be writing then.

    Args:
        videos: from `vidpipe.video.files.find_videos`.
        store_path: the folder of the one store, or of several; see `vidpipe.features.streams.place_stores`. It is made
            if it does not exist.
        config: the settings; those that change a feature must be the stores' own.
        part: which of the videos to extract; several processes, each with its own part, can fill one store.
        force: extract stored videos again, and retry those that failed.
        retry_failed: retry videos that failed in an earlier run.
        on_progress: called after each video, and about once a second.

    Returns:
        The counts, the failures, and the files that were moved or are gone.

    Raises:
        UsageError: a backbone, its pooling or a weights file does not exist, a setting does not go with a backbone,
            several streams are to go into one store, or this machine has no GPU that decodes.
        StoreError: a folder is no store, has another key, cannot be written, holds other videos under the same ids
            (see `vidpipe.features.inventory.refuse_other_collections`), or another process writes this part.
        WeightsError: the backbone's weights cannot be downloaded or read.
        ExecutorError: Ray cannot be reached, or one of its nodes cannot take part.
        InterruptedExtractionError: Ctrl-C; the videos that were finished are stored.
    """
    with connected(config):
        return _extract(videos, store_path, config, part, force, retry_failed, on_progress)


def _extract(
    videos: Sequence[VideoFile],
    store_path: Path,
    config: ExtractConfig,
    part: Part,
    force: bool,
    retry_failed: bool,
    on_progress: Callable[[ExtractProgress], None],
) -> ExtractSummary:
    if config.executor == "local":
        choose_decoder(config.decoding, config.decoder)  # before a store is made that only a GPU can fill
    streams = _resolve_streams(config)
    paths = place_stores(store_path, {name: stream.key for name, stream in streams.items()})
    if not all((path / "store.json").exists() for path in paths.values()):
        _check_detectors(config)
    stores = {name: FeatureStore.create(paths[name], stream.key) for name, stream in streams.items()}
    with ExitStack() as locks:
        for store in stores.values():
            locks.enter_context(store.lock(part))
        pending = {
            name: _prepare(store, videos, part=part, force=force, retry_failed=retry_failed)
            for name, store in stores.items()
        }
        progress, failures, utilisation = _extract_pending(videos, stores, pending, streams, config, on_progress)
    return ExtractSummary(
        {name: one.summarise(failures) for name, one in pending.items()},
        num_stored=progress.num_done,
        num_skipped=len(frozenset.intersection(*(one.plan.stored_ids for one in pending.values()))),
        num_frames=progress.num_frames,
        seconds=progress.seconds,
        utilisation=utilisation,
    )


def _resolve_streams(config: ExtractConfig, *, weights: WeightsFile | None = None) -> dict[str, Stream]:
    """The streams of an extraction, with its detector; `weights` stands for all of them, as for `Stream.of`."""
    finder, pose = RegionFinder.of(config, weights=weights), PoseFinder.of(config, weights=weights)
    return resolve_streams(
        config,
        weights=weights,
        regions=None if finder is None else finder.as_dict(),
        pose=None if pose is None else pose.described,
    )


def _check_detectors(config: ExtractConfig) -> None:
    """Refuse a wrong file before a store is made for what it would find."""
    for finder in (RegionFinder.of(config), PoseFinder.of(config)):
        if finder is not None:
            finder.detector.check()


@dataclass(frozen=True)
class _Pending:
    """What is left to extract into one store."""

    store_path: Path
    plan: ExtractionPlan
    changes: FileChanges
    ids: frozenset[str]
    """Videos to extract."""
    old_ids: frozenset[str]
    """Of these, those that the store holds in another version."""

    def summarise(self, failures: Mapping[str, VideoFailure]) -> StreamSummary:
        """What has become of it, with the failures of all streams by id."""
        failed = self.ids & failures.keys()
        return StreamSummary(
            self.store_path,
            num_stored=len(self.ids - failed),
            num_skipped=len(self.plan.stored_ids),
            failures=tuple(failures[video_id] for video_id in sorted(failed)),
            known_failures=self.plan.failed_before,
            num_replaced=len(self.old_ids - failed),
            reused=self.changes.reused,
            moved=self.changes.moved,
            gone=self.changes.gone,
        )


def _prepare(
    store: FeatureStore, videos: Sequence[VideoFile], *, part: Part, force: bool, retry_failed: bool
) -> _Pending:
    """Find what a store lacks, and follow moved files."""
    if part == WHOLE:
        store.clear_leftovers()
    plan = plan_extraction(store, videos, part=part, force=force, retry_failed=retry_failed)
    changes = follow_files(store, videos, plan.reusable, drop_old_ids=part == WHOLE)
    ids = frozenset(video.id for video in (*plan.to_extract, *changes.not_reused))
    old_ids = frozenset(video_id for video_id in ids if video_id in store)
    return _Pending(store.path, plan, changes, ids, old_ids)


def _extract_pending(
    videos: Sequence[VideoFile],
    stores: Mapping[str, FeatureStore],
    pending: Mapping[str, _Pending],
    streams: Mapping[str, Stream],
    config: ExtractConfig,
    on_progress: Callable[[ExtractProgress], None],
) -> tuple[ExtractProgress, dict[str, VideoFailure], Utilisation]:
    """Extract what the stores lack; return how far it got, the failures by id, and how busy all were."""
    wanted = {video.id: tuple(name for name, one in pending.items() if video.id in one.ids) for video in videos}
    to_extract = [video for video in videos if wanted[video.id]]
    progress, failures, utilisation = ExtractProgress(len(to_extract)), dict[str, VideoFailure](), Utilisation()
    if not to_extract:
        return progress, failures, utilisation
    needed = {name: streams[name] for name, one in pending.items() if one.ids}
    steps = extract_videos(stores, to_extract, needed, config=config, wanted=wanted, utilisation=utilisation)
    try:
        with closing(steps):
            for progress in steps:
                if progress.failure is not None:
                    failures[progress.failure.video_id] = progress.failure
                on_progress(progress)
    except KeyboardInterrupt:
        places = " and ".join(str(stores[name].path) for name in needed)
        raise InterruptedExtractionError(
            f"stopped; {progress.num_done} of {count_of(len(to_extract), 'video')} stored in {places}. "
            "The same command continues from there"
        ) from None
    return progress, failures, utilisation


def preview(
    videos: Sequence[VideoFile],
    store_path: Path,
    *,
    config: ExtractConfig,
    part: Part = WHOLE,
    force: bool = False,
    retry_failed: bool = False,
) -> dict[str, str]:
    """Return what `extract` with the same arguments would do with each video; write nothing and read no weights.

    Args:
        videos: as for `extract`.
        store_path: as for `extract`.
        config: as for `extract`.
        part: as for `extract`.
        force: as for `extract`.
        retry_failed: as for `extract`.

    Returns:
        For each id why the video would be skipped, in words; an empty text where some stream would be extracted.

    Raises:
        UsageError: a backbone or its pooling does not exist, a setting does not go with a backbone, or several streams
            are to go into one store.
        StoreError: a store cannot be read, was made with other settings, or holds other videos under the same ids.
    """
    streams = _resolve_streams(config, weights=WEIGHTS_NOT_READ)
    paths = place_stores(store_path, {name: stream.key for name, stream in streams.items()})
    reasons: dict[str, str] = {}
    for name, stream in streams.items():
        store = None
        if (paths[name] / "store.json").exists():
            store = FeatureStore.open(paths[name])
            store.check_key(_with_weights_of(stream.key, store.key))
        plan = plan_extraction(store, videos, part=part, force=force, retry_failed=retry_failed)
        found = skip_reasons(plan, videos)
        reasons = {video_id: reason and reasons.get(video_id, reason) for video_id, reason in found.items()}
    return reasons


def _with_weights_of(key: FeatureKey, other: FeatureKey) -> FeatureKey:
    """A key whose weights were not read, with those of another one."""
    regions = key.regions
    if regions is not None and other.regions is not None:
        regions = {**regions, "weights": other.regions.get("weights")}
    return replace(key, weights=other.weights, regions=regions)
