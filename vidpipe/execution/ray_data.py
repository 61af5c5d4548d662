"""Extraction on a Ray cluster, by Ray Data: rows are batches of paths, and actors write shards of their own.

    driver   plans, holds the stores' locks, cuts batches ──► actors   decode, run the backbones, seal shards
             counts what the stores have got              ◄──          reports: counts and failures

Ray may lose an actor, a node or a report at any time. So the stores alone say what is done: after each pass over the
videos, the driver reads the new shards, and the next pass has what is missing, in smaller batches. A batch is never
retried by Ray itself, so no two actors extract the same video.
"""

import logging
import pickle
import sys
import threading
import time
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from queue import Empty, Queue

import ray.data
from ray.util.annotations import RayDeprecationWarning

from vidpipe import errors
from vidpipe.backbones.batching import Utilisation
from vidpipe.config import ExtractConfig
from vidpipe.errors import ActorCrashError, ExecutorError, VidpipeError
from vidpipe.execution.actors import ActorPlan, cut_batches, plan_actors
from vidpipe.execution.node import Batch, Extractor, Job, Report
from vidpipe.execution.progress import ExtractProgress
from vidpipe.execution.ray_cluster import check_nodes, head_answers, list_nodes
from vidpipe.features.store import FeatureStore
from vidpipe.records import VideoFailure, VideoFile

__all__ = ["Actor", "Reports", "extract_on_ray", "start_actors"]

logger = logging.getLogger(__name__)

SHRINK = (1, 8, None)
"""In each pass: by what the largest batch is divided; None: each video is a batch of its own."""
STALL_SECONDS = 300.0
"""Without a report for this long, an extraction ends: no actor starts, or none answers."""
STOP_SECONDS, HEADLESS_SECONDS = 60.0, 15.0
"""How long actors may take to seal what they have after Ctrl-C, and where the head has ended: then Ray ends all
processes after a minute."""
QUIET_SECONDS = 5.0
"""Without a report for this long, the head is looked for."""
CRASHES_PER_ACTOR = 3
"""Actors that may be replaced before a video is done, for each actor."""


def extract_on_ray(
    stores: Mapping[str, FeatureStore],
    videos: Sequence[VideoFile],
    *,
    config: ExtractConfig,
    wanted: Mapping[str, Sequence[str]],
    utilisation: Utilisation,
    owner: str | None = None,
) -> Generator[ExtractProgress]:
    """Extract videos into stores on the cluster that this process is connected to.

    Args:
        stores: by stream; this process holds their locks.
        videos: what to extract, whether the stores hold it or not.
        config: the settings.
        wanted: by id, the streams that need the video.
        utilisation: gets how busy the decoders and the models of all actors were.
        owner: the folder of the run that the features are for, which may have weights of its own.

    Yields:
        The progress at every report, and for every failure. The last one counts what the stores have got.

    Raises:
        ExecutorError: a node cannot take part, no actor starts, or actors end again and again.
        VidpipeError: what stopped an actor, such as a full disk.
    """
    plan = plan_actors(list_nodes(), config)
    videos = [replace(video, path=video.path.absolute()) for video in videos]
    job = Job.of(stores, config, num_videos=len(videos), cores=plan.cpus, num_actors=plan.count, owner=owner)
    with ExitStack() as stack:
        stack.callback(job.stop)
        job.start()
        check_nodes(list(plan.by_node), job, videos)
        logger.info("Ray: %s", plan.describe())
        extraction = _Extraction(stores, videos, wanted, utilisation)
        for number, shrink in enumerate(SHRINK):
            if left := extraction.left():
                size = 1 if shrink is None else max(1, config.seal_videos // shrink)
                batches = cut_batches(left, extraction.lacking(left), num_actors=plan.count, max_videos=size)
                yield from _run(extraction, replace(job, token=f"{job.token}-{number}"), plan, batches)
        yield from extraction.give_up()
        yield extraction.progress


class _Extraction:
    """What is done of an extraction, by the stores' new shards and the actors' reports."""

    def __init__(
        self,
        stores: Mapping[str, FeatureStore],
        videos: Sequence[VideoFile],
        wanted: Mapping[str, Sequence[str]],
        utilisation: Utilisation,
    ) -> None:
        self._stores, self._videos, self._wanted, self._utilisation = stores, videos, wanted, utilisation
        self._old_shards = {name: set(store.shard_paths) for name, store in stores.items()}
        self._rows: dict[str, dict[str, int]] = {name: {} for name in stores}
        """By stream and id, the rows that were stored since."""
        self._failed: dict[str, VideoFailure] = {}
        self._started = time.monotonic()
        self._busy: dict[str, Utilisation] = {}
        self.processes: set[str] = set()
        self.num_processes_at_success = 0
        self.progress = ExtractProgress(len(videos))

    def take(self, report: Report) -> Iterator[ExtractProgress]:
        """Count what a report says."""
        self.processes.add(report.process)
        if report.utilisation is not None:
            self._busy[report.process] = report.utilisation
        if report.num_done or report.failures:
            self.num_processes_at_success = len(self.processes)
        self._advance(report.num_done, report.num_frames)
        for failure in report.failures:
            if failure.video_id not in self._failed:
                yield self._fail(failure)
        self.progress = replace(self.progress, reading=report.reading, failure=None)
        yield self.progress

    def _advance(self, num_done: int, num_frames: int) -> None:
        """Count extracted videos; one whose actor ended before it was sealed is extracted, and counted, again."""
        done = min(self.progress.num_done + num_done, len(self._videos) - self.progress.num_failed)
        self.progress = replace(
            self.progress,
            num_done=done,
            num_frames=self.progress.num_frames + num_frames,
            seconds=time.monotonic() - self._started,
        )

    def _fail(self, failure: VideoFailure) -> ExtractProgress:
        self._failed[failure.video_id] = failure
        self.progress = replace(self.progress, num_failed=len(self._failed), reading=None, failure=failure)
        return self.progress

    def left(self) -> list[VideoFile]:
        """Read the new shards; return the videos that have neither failed nor been stored by all their streams."""
        self._read_new_shards()
        return [video for video in self._videos if self._missing(video)]

    def lacking(self, videos: Sequence[VideoFile]) -> dict[str, tuple[str, ...]]:
        """Return the streams that still need each video, by id."""
        return {video.id: self._missing(video) for video in videos}

    def _missing(self, video: VideoFile) -> tuple[str, ...]:
        if video.id in self._failed:
            return ()
        return tuple(name for name in self._wanted[video.id] if video.id not in self._rows[name])

    def _read_new_shards(self) -> None:
        for name, store in self._stores.items():
            for path in store.shard_paths:
                if path not in self._old_shards[name]:
                    self._old_shards[name].add(path)
                    rows = store.open_shard(path).videos
                    self._rows[name] |= {row.id: row.length // store.key.num_cells for row in rows}
            store.refresh()
        done = [video for video in self._videos if video.id not in self._failed and not self._missing(video)]
        num_frames = sum(rows.get(video.id, 0) for rows in self._rows.values() for video in done)
        seconds = time.monotonic() - self._started
        self.progress = replace(
            self.progress, num_done=len(done), num_frames=num_frames, seconds=seconds, reading=None, failure=None
        )
        self._sum_utilisation()

    def _sum_utilisation(self) -> None:
        for name in ("seconds", "model_seconds", "decoding_seconds"):
            setattr(self._utilisation, name, sum(getattr(one, name) for one in self._busy.values()))
        self._utilisation.num_workers = max((one.num_workers for one in self._busy.values()), default=1)

    def give_up(self) -> Iterator[ExtractProgress]:
        """Note the videos that no pass could extract as failed."""
        for video in self.left():
            message = f"the actor that extracted it ended, {len(SHRINK)} times; the next run tries it again"
            failure = VideoFailure(video.id, ActorCrashError.__name__, message)
            for name in self._missing(video):
                with self._stores[name].writer() as writer:
                    writer.fail(failure, video)
            yield self._fail(failure)


def _run(extraction: _Extraction, job: Job, plan: ActorPlan, batches: Sequence[Batch]) -> Iterator[ExtractProgress]:
    """Have the actors extract batches; on Ctrl-C they seal what they have."""
    num_actors = min(plan.count, len(batches))
    extraction.processes.clear()
    extraction.num_processes_at_success = num_actors
    job.start()  # an actor of an earlier pass that still runs, on a node that Ray has given up, stops
    reports = start_actors(job, plan, batches)
    try:
        for report in reports:
            if report.error is not None:
                raise _error_of(report)
            yield from extraction.take(report)
            if len(extraction.processes) - extraction.num_processes_at_success > CRASHES_PER_ACTOR * num_actors:
                raise ExecutorError(
                    f"{len(extraction.processes) - num_actors} actors ended without a video done; is there memory "
                    "left on the nodes? Fewer --ray-actors, or fewer --workers, need less"
                )
    except BaseException as error:
        job.stop()
        reports.drain(STOP_SECONDS if head_answers() else HEADLESS_SECONDS)
        if isinstance(error, KeyboardInterrupt):
            extraction.left()
            yield extraction.progress
        raise
    job.stop()


def _error_of(report: Report) -> VidpipeError:
    """The error that stopped an actor, with its node."""
    assert report.error is not None
    kind = getattr(errors, report.error.name, VidpipeError)
    host = report.process.rpartition(":")[0]
    error: VidpipeError = kind(f"node {host}: {report.error.message}")
    return error


class Actor(Extractor):
    """An actor of Ray Data: a row is a pickled batch, and each report is a block of its own.

    Args:
        job: a pickled `Job`.
    """

    def __init__(self, job: bytes) -> None:
        super().__init__(job)
        # A process that decodes would import the main program of its actor, which is Ray's, with all of Ray.
        sys.modules["__main__"].__dict__.pop("__file__", None)

    def __call__(self, rows: Mapping[str, Sequence[bytes]]) -> Iterator[dict[str, list[bytes]]]:
        for pickled in rows["batch"]:
            for report in self.extract(pickle.loads(pickled)):
                yield {"report": [pickle.dumps(report)]}


def start_actors(job: Job, plan: ActorPlan, batches: Sequence[Batch], *, actor: type[Actor] = Actor) -> "Reports":
    """Have actors extract batches.

    Args:
        job: the extraction.
        plan: the actors.
        batches: what they extract, in this order.
        actor: the class of the actors.

    Returns:
        Their reports, as they come.
    """
    rows = [{"batch": pickle.dumps(batch)} for batch in batches]
    with warnings.catch_warnings():
        # Ray Data has no other way to bound what it retries; its own context warns about its own fields.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        source = ray.data.from_items(rows, override_num_blocks=len(rows))
        _configure(source.context)
        dataset = source.map_batches(
            actor,
            batch_size=None,
            compute=ray.data.ActorPoolStrategy(size=min(plan.count, len(batches))),
            fn_constructor_args=(pickle.dumps(job),),
            num_cpus=plan.cpus,
            num_gpus=plan.gpus or None,
            max_restarts=-1,  # an actor that ends is replaced, and
            max_task_retries=0,  # its unsealed videos are left to the next pass
        )
    return Reports(dataset)


def _configure(context: "ray.data.DataContext") -> None:
    is_debugged = logger.isEnabledFor(logging.DEBUG)
    context.enable_progress_bars = False
    context.print_on_execution_start = is_debugged
    context.target_max_block_size = 1  # a report is sent when it is made
    context.max_errored_blocks = -1  # the batches of an actor that ended
    context.execution_no_progress_timeout_s = STALL_SECONDS
    logging.getLogger("ray.data").setLevel(logging.INFO if is_debugged else logging.CRITICAL + 1)


class Reports:
    """The reports of actors, read in a thread, so that Ctrl-C does not end the reading.

    Args:
        dataset: computes the reports while it is read.
    """

    def __init__(self, dataset: "ray.data.Dataset") -> None:
        self._dataset = dataset
        self._queue: Queue[Report | BaseException | None] = Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            for row in self._dataset.iter_rows():
                self._queue.put(pickle.loads(row["report"]))
            self._queue.put(None)
        except BaseException as error:
            self._queue.put(error)

    def __iter__(self) -> Iterator[Report]:
        while True:
            try:
                item = self._queue.get(timeout=QUIET_SECONDS)
            except Empty:
                if not head_answers():
                    raise ExecutorError(
                        "Ray's head has ended; what was sealed is safe, and the same command goes on with a new cluster"
                    ) from None
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise ExecutorError(
                    f"Ray stopped the extraction: {_first_line(item)}; what was sealed is safe, and the same command "
                    "goes on"
                ) from item
            yield item

    def drain(self, seconds: float) -> None:
        """Wait until the actors have ended their batches.

        Args:
            seconds: at most.
        """
        deadline = time.monotonic() + seconds
        with suppress(Empty):
            while isinstance(self._queue.get(timeout=max(0.0, deadline - time.monotonic())), Report):
                pass


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}".rstrip(".")
