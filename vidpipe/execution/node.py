"""Extraction on a node of a cluster: an actor decodes, runs the backbones, and writes shards of its own.

    job file     STORE/locks/TOKEN.job, which the driver writes: a node that does not see it does not see the store;
                 an actor that no longer sees it seals what it has, and stops
    batch        videos that an actor extracts in one go; it seals a shard at the end, or earlier (`--seal-videos`)
    report       what an actor sends to the driver: counts and failures, about every `report_seconds`; never frames

Nothing here depends on the engine that starts the actors.
"""

import os
import pickle
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import NamedTemporaryFile
from uuid import uuid4

from vidpipe.backbones.batching import Utilisation
from vidpipe.backbones.stream import Stream
from vidpipe.config import ExtractConfig
from vidpipe.errors import ExecutorError, StoreError, VidpipeError
from vidpipe.execution.loaded import LoadedStream, busiest_device, find_detector_of
from vidpipe.execution.local import extract_into
from vidpipe.features.locks import JOB_SUFFIX
from vidpipe.features.siblings import find_siblings
from vidpipe.features.store import FeatureStore
from vidpipe.records import DecodeProgress, VideoFailure, VideoFile
from vidpipe.version import __version__
from vidpipe.video.decoding import default_workers

__all__ = ["Batch", "Extractor", "Job", "NodeError", "Report", "find_problem", "find_store_problem"]


@dataclass(frozen=True)
class Job:
    """What every actor of an extraction needs to know."""

    token: str
    store_paths: Mapping[str, str]
    """By stream, absolute."""
    config: ExtractConfig
    num_videos: int
    cores: int
    """Of an actor."""
    report_seconds: float
    """Between two reports of an actor."""
    owner: str | None = None
    """The folder of the run that the features are for, absolute; None for an extraction."""
    version: str = __version__
    """The driver's version of vidpipe."""

    @classmethod
    def of(
        cls,
        stores: Mapping[str, FeatureStore],
        config: ExtractConfig,
        *,
        num_videos: int,
        cores: int,
        num_actors: int,
        owner: str | None = None,
    ) -> "Job":
        """Describe an extraction.

        Args:
            stores: by stream.
            config: the settings.
            num_videos: how many videos there are to extract.
            cores: of an actor.
            num_actors: how many there are: many report less often.
            owner: the folder of the run that the features are for.

        Returns:
            The job, with a token of its own.
        """
        paths = {name: str(store.path.absolute()) for name, store in stores.items()}
        run_path = None if owner is None else os.path.abspath(owner)
        return cls(uuid4().hex[:12], paths, config, num_videos, cores, max(1.0, num_actors / 50), run_path)

    @property
    def files(self) -> tuple[Path, ...]:
        """The job's file in each store."""
        return tuple(Path(path, "locks", f"{self.token}{JOB_SUFFIX}") for path in self.store_paths.values())

    @property
    def is_running(self) -> bool:
        """Whether the driver has not stopped the job."""
        return self.files[0].exists()

    def start(self) -> None:
        """Write the job's files.

        Raises:
            StoreError: a store cannot be written.
        """
        for path in self.files:
            try:
                path.write_text(f"{socket.gethostname()} {os.getpid()}\n", encoding="utf-8")
            except OSError as error:
                raise StoreError(f"{path}: cannot be written ({error})") from error

    def stop(self) -> None:
        """Remove the job's files: the actors seal what they have, and stop."""
        for path in self.files:
            with suppress(OSError):
                path.unlink(missing_ok=True)


Batch = tuple[Sequence[VideoFile], Mapping[str, Sequence[str]]]
"""Videos, and by id the streams that need them."""


@dataclass(frozen=True)
class NodeError:
    """An error that stops an extraction."""

    name: str
    """Of its class."""
    message: str


@dataclass(frozen=True)
class Report:
    """What has happened in an actor since its last report."""

    process: str
    """`host:pid`."""
    num_done: int = 0
    num_frames: int = 0
    failures: tuple[VideoFailure, ...] = ()
    reading: DecodeProgress | None = None
    """The progress of a video that is being decoded."""
    utilisation: Utilisation | None = None
    """Since the actor's process started."""
    error: NodeError | None = None


def find_problem(version: str, job: bytes, samples: Sequence[str]) -> str:
    """Check that this node can do its share of an extraction.

    Args:
        version: the driver's version of vidpipe. It is compared first: another version may not understand the rest.
        job: a pickled `Job`.
        samples: some of the videos' paths, which the driver sees.

    Returns:
        What is wrong and what to do; empty where nothing is.
    """
    if problem := _version_problem(version):
        return problem
    unpickled: Job = pickle.loads(job)
    for path in unpickled.files:
        if problem := _store_problem(path):
            return problem
    for sample in samples:
        if not os.path.exists(sample):
            return f"does not see {sample}; the videos must be in a folder that all nodes see under the same path"
    try:
        for store_path in unpickled.store_paths.values():
            find_detector_of(_stream_of(FeatureStore.open(store_path), unpickled), unpickled.config)
    except VidpipeError as error:
        return str(error)
    return ""


def find_store_problem(version: str, store: str, shards: Sequence[str]) -> str:
    """Check that this node can read a store.

    Args:
        version: the driver's version of vidpipe.
        store: the store's absolute path.
        shards: the names of the shards that the driver sees.

    Returns:
        What is wrong and what to do; empty where nothing is.
    """
    if problem := _version_problem(version):
        return problem
    return "" if all(Path(store, "shards", name).exists() for name in shards) else _not_seen(store)


def _version_problem(version: str) -> str:
    if version == __version__:
        return ""
    return f"has vidpipe {__version__}, and the driver has {version}; install the same version on every node"


def _not_seen(store: Path | str) -> str:
    return f"does not see {store}; the store must be in a folder that all nodes see under the same path"


def _store_problem(job_file: Path) -> str:
    """Why this node cannot write into the store of a job's file."""
    store = job_file.parents[1]
    if not job_file.exists():
        return _not_seen(store)
    try:
        with NamedTemporaryFile(dir=store / "shards", suffix=".writing"):
            return ""
    except OSError as error:
        return f"cannot write into {store} ({error.strerror})"


def _stream_of(store: FeatureStore, job: Job) -> Stream:
    """The stream whose features a store has; its weights must be here, and be the store's."""
    return Stream.of_key(store.key, weights=job.config.weights, owner=job.owner or str(store.path))


class Extractor:
    """An actor: extracts batches of videos into the stores of a job. Its backbones are loaded with the first batch.

    Args:
        job: a pickled `Job`.
    """

    def __init__(self, job: bytes) -> None:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in `vidpipe.cli`
        self._job: Job = pickle.loads(job)
        self._loaded: dict[str, LoadedStream] = {}
        self._utilisation = Utilisation()
        self._process = f"{socket.gethostname()}:{os.getpid()}"

    def extract(self, batch: Batch) -> Iterator[Report]:
        """Extract a batch; all that could be extracted is sealed at the end.

        Args:
            batch: what to extract.

        Yields:
            A report at once, one about every `report_seconds`, and one at the end. An error ends them.
        """
        yield Report(self._process)
        try:
            self._check()
            if self._job.is_running:
                yield from self._extract(*batch)
        except VidpipeError as error:
            yield Report(self._process, error=NodeError(type(error).__name__, str(error)))
        except Exception as error:  # as on one machine, it stops the extraction
            message = f"{type(error).__name__}: {error}. This is a bug in vidpipe; report it"
            yield Report(self._process, error=NodeError(VidpipeError.__name__, message))

    def _check(self) -> None:
        """Refuse a node that has joined the cluster since the others were asked for problems, and has one."""
        store = next(iter(self._job.store_paths.values()))
        problem = _version_problem(self._job.version) or ("" if Path(store).exists() else _not_seen(store))
        if problem:
            raise ExecutorError(problem)

    def _extract(self, videos: Sequence[VideoFile], wanted: Mapping[str, Sequence[str]]) -> Iterator[Report]:
        names = {name for video in videos for name in wanted[video.id]}
        stores = {name: FeatureStore.open(path) for name, path in self._job.store_paths.items() if name in names}
        streams = {name: self._load(name, store) for name, store in stores.items()}
        news, reported_at = Report(self._process), time.monotonic()
        steps = extract_into(
            stores, videos, streams, config=self._config(streams), wanted=wanted, utilisation=self._utilisation
        )
        num_done = num_frames = 0
        with closing(steps):
            for step in steps:
                news = replace(
                    news,
                    num_done=news.num_done + step.num_done - num_done,
                    num_frames=news.num_frames + step.num_frames - num_frames,
                    failures=news.failures if step.failure is None else (*news.failures, step.failure),
                    reading=step.reading,
                )
                num_done, num_frames = step.num_done, step.num_frames
                if time.monotonic() - reported_at >= self._job.report_seconds:
                    yield replace(news, utilisation=replace(self._utilisation))
                    news, reported_at = Report(self._process), time.monotonic()
                    if not self._job.is_running:
                        break
        yield replace(news, reading=None, utilisation=replace(self._utilisation))

    def _load(self, name: str, store: FeatureStore) -> LoadedStream:
        if name not in self._loaded:
            import torch

            torch.set_num_threads(self._job.cores)
            config, num_videos = self._job.config, self._job.num_videos
            stream = LoadedStream.load(
                _stream_of(store, self._job), config, num_videos=num_videos, num_threads=self._job.cores
            )
            self._loaded[name] = replace(stream, siblings=find_siblings(store))
        return self._loaded[name]

    def _config(self, streams: Mapping[str, LoadedStream]) -> ExtractConfig:
        """The settings, with as many decoding processes as the actor's cores allow."""
        config = self._job.config
        workers = default_workers(busiest_device(streams.values()), config.decoder, cores=self._job.cores)
        return replace(config, workers=config.workers or workers)
