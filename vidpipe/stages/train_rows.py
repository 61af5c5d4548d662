"""Stage 2 for labels of rows: a head that sees a long video as a whole, and labels each of its rows."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from vidpipe.backbones.image import choose_device
from vidpipe.config import TrainConfig
from vidpipe.datasets.interval_labels import LabelledWindows
from vidpipe.datasets.protocol import draw_protocol
from vidpipe.datasets.rows import label_rows
from vidpipe.datasets.splits import SUBSETS, Split, describe_grouping
from vidpipe.datasets.streams import kind_of
from vidpipe.datasets.warning_collector import collect_warnings
from vidpipe.errors import UsageError
from vidpipe.heads.members import resolve_val_fraction
from vidpipe.heads.rows import ROW_HEADS, RowHead
from vidpipe.records import Timeline
from vidpipe.runs.run import Run, RunMember, RunStream, save_run
from vidpipe.runs.run_folder import check_apart_from_store
from vidpipe.runs.tables import Epoch, SplitRow
from vidpipe.stages.train import TrainResult
from vidpipe.timeline.classifier import RowClassifier, RowCurve
from vidpipe.timeline.decoding import Decoding
from vidpipe.training.rows import fit_rows
from vidpipe.training.session import TrainingSession, open_session
from vidpipe.training.timelines import MIN_UNITS, TimelineJudge, TimelineResult, write_timelines

__all__ = ["train_rows"]


def train_rows(
    windows: LabelledWindows,
    run_path: Path,
    *,
    config: TrainConfig,
    overwrite: bool = False,
    label_warnings: Sequence[str] = (),
    on_epoch: Callable[[str, Epoch], None] = lambda head, epoch: None,
) -> TrainResult:
    """Train a head that labels each row of long videos, score its timelines of the test videos, then refit it.

    Args:
        windows: the long videos. Their windows draw the split, so that its subsets have all labels.
        run_path: the folder to write; it is replaced as a whole at the end.
        config: the settings; `head` is `tcn` or `bilstm`.
        overwrite: replace the run that is there.
        label_warnings: the warnings of reading the labels, to save in the run.
        on_epoch: called after each epoch with the name of the head.

    Returns:
        The run, its split by windows, and the timelines of the test videos.

    Raises:
        LabelsError: the videos cannot be split.
        UsageError: the head does not label rows, or the folder holds something else than a run.
        RunError: the folder cannot be written, or another process trains the run.
        TrainingError: a loss is not finite.
        InterruptedTrainingError: Ctrl-C.
    """
    if any(kind_of(store.key) == "pose" for store in windows.whole.values()):
        raise UsageError(
            "--targets rows: its heads see a video as a whole, and key points describe two people in a window; leave "
            "out the stream pose, or --targets rows"
        )
    if config.head not in ROW_HEADS:
        raise UsageError(f"--targets rows goes with --head {' or --head '.join(ROW_HEADS)}, not with {config.head}")
    if config.folds is not None or config.leave_one_group_out or config.repeats > 1:
        raise UsageError("--targets rows tests once; leave out --folds, --leave-one-group-out and --repeats")
    for store in windows.whole.values():
        check_apart_from_store(run_path, store.path)
    options = {"resume": False, "overwrite": overwrite, "tensorboard": False}
    with open_session(run_path, config, **options, on_epoch=on_epoch) as session:
        with collect_warnings() as split_warnings:
            split = draw_protocol(windows.videos, resolve_val_fraction(config, 1)).split
        rows = _Rows(windows, split, session)
        tested, history = rows.fit(rows.videos("train"))
        result = rows.judge.result(
            {name: rows.videos(name) for name in SUBSETS}, partial(rows.curves, tested), rows.find_decoding()
        )
        learned = rows.subsets_to_learn()
        saved = tested if learned == ("train",) else rows.fit(rows.videos(*learned), is_refit=True)[0]
        run = rows.run(result, learned, warnings=(*label_warnings, *split_warnings))
        session.folder.put_in_place(partial(_write, run, saved, rows, history, result))
    return TrainResult(run, split, {}, None, (), result)


class _Rows:
    """The long videos of a training, and heads on their rows."""

    def __init__(self, windows: LabelledWindows, split: Split, session: TrainingSession) -> None:
        self.windows, self.split, self._session = windows, split, session
        self.class_names = sorted({video.label for video in (*split.train, *split.val)})
        self.judge = TimelineJudge(windows, self.class_names)
        self._keys = {name: store.key for name, store in windows.whole.items()}

    def videos(self, *subsets: str) -> tuple[Timeline, ...]:
        """The long videos of some subsets."""
        return self.judge.truth_of(video.video_id for name in subsets for video in self.split[name])

    def fit(self, videos: Sequence[Timeline], *, is_refit: bool = False) -> tuple[RowHead, list[Epoch]]:
        """Fit a head to some videos."""
        config = self._session.config
        rows = [label_rows(self.windows.whole, one, self.class_names, self.windows.background) for one in videos]
        record = partial(self._session.record_epoch, config.head, is_refit=is_refit)
        return fit_rows(config.head, rows, len(self.class_names), config, on_epoch=record)

    def curves(self, head: RowHead, videos: Sequence[Timeline]) -> Iterator[RowCurve]:
        """The curves of some videos."""
        device = choose_device(self._session.config.device)
        classifier = RowClassifier(head, self._keys, self.windows.window_seconds, device)
        for one in videos:
            yield classifier.curve(self.judge.features_of(one.video_id))

    def subsets_to_learn(self) -> tuple[str, ...]:
        """The subsets that the saved head is fitted to: all with videos, but a test set that the labels give."""
        if not self._session.config.refit:
            return ("train",)
        is_given = any(video.split for video in self.split.test)
        return tuple(name for name in SUBSETS if self.split[name] and not (name == "test" and is_given))

    def find_decoding(self) -> Decoding | None:
        """The best decoding for a head of half of the training videos, on the other half; None for too few."""
        training = self.videos("train")
        units = list(dict.fromkeys(one.group or one.video_id for one in training))
        if len(units) < MIN_UNITS:
            return None
        self._session.set_stage("while finding the settings of the decoding")
        learned, unseen = (
            tuple(one for one in training if (one.group or one.video_id) in set(units[part::2])) for part in (0, 1)
        )
        head, _ = self.fit(learned)
        return self.judge.choose_decoding(unseen, list(self.curves(head, unseen)))

    def run(self, result: TimelineResult, learned_subsets: tuple[str, ...], *, warnings: Sequence[str]) -> Run:
        """The run's record."""
        config, streams = self._session.config, tuple(self._keys)
        some_video = self.judge.features_of(self.windows.truth[0].video_id)
        dims = {name: sequence.features.shape[1] for name, sequence in some_video.items()}
        return Run(
            path=self._session.folder.run_path,
            config=config,
            class_names=tuple(self.class_names),
            streams=tuple(RunStream(name, key, dims[name]) for name, key in self._keys.items()),
            members=(RunMember(streams, config.head, 1.0, tuple({} for _ in streams)),),
            metrics={},
            grouping=describe_grouping(self.split),
            learned_subsets=learned_subsets,
            clip_seconds=self.windows.window_seconds,
            background=self.windows.background,
            timelines=result.as_dict(),
            warnings=tuple(dict.fromkeys(warnings)),
        )


def _write(
    run: Run, head: RowHead, rows: _Rows, history: Sequence[Epoch], result: TimelineResult, folder: Path
) -> None:
    """Fill a run's folder."""
    splits = [_split_row(rows, subset, video) for subset in SUBSETS for video in rows.videos(subset)]
    save_run(run, folder, classifiers={"rows": head}, tables={"splits": splits, "history": history})
    write_timelines(result, folder)


def _split_row(rows: _Rows, subset: str, video: Timeline) -> SplitRow:
    store = next(iter(rows.windows.whole.values()))
    labels = "+".join(sorted({segment.label for segment in video.segments}))
    return SplitRow(video.video_id, labels, subset, video.group or "", store.info(video.video_id).size_bytes)
