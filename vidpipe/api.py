"""The Python interface: the stages as functions that take paths and settings by name.

`import vidpipe` gives these functions. Settings are named as in config files (`vidpipe.config`): `--num-frames 8` is
`num_frames=8`. Each function imports its stage when it is called, so that importing vidpipe stays quick.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from vidpipe.config import (
    DUPLICATE_THRESHOLD,
    DUPLICATES_SETTINGS,
    EXPLAIN_SETTINGS,
    FINETUNE_SETTINGS,
    PREDICT_SETTINGS,
    SEARCH_SETTINGS,
    SECTIONS,
    ClustersConfig,
    DetectorConfig,
    EmbeddingConfig,
    ExtractConfig,
    FinetuneConfig,
    LabelsConfig,
    TimelineConfig,
    TrainConfig,
    check_names,
    make_config,
)
from vidpipe.config import settings as settings_of
from vidpipe.csv_files import is_url
from vidpipe.errors import UsageError

if TYPE_CHECKING:
    from vidpipe.execution.progress import ExtractProgress
    from vidpipe.explain.explanation import ExplainedVideo
    from vidpipe.features.store import FeatureStore
    from vidpipe.records import Prediction, Timeline, VideoFailure
    from vidpipe.regions.training.fit import Step
    from vidpipe.regions.training.train import DetectorTraining
    from vidpipe.runs.run import Run
    from vidpipe.runs.tables import Epoch
    from vidpipe.search.clusters import Clustering
    from vidpipe.search.duplicates import DuplicateGroup
    from vidpipe.search.embedded import EmbeddedVideos
    from vidpipe.search.embedding import Embedding
    from vidpipe.search.similar import SimilarResult
    from vidpipe.stages.evaluate import EvaluationReport
    from vidpipe.stages.extract import ExtractSummary
    from vidpipe.stages.finetune import FinetuneResult
    from vidpipe.stages.train import TrainResult
    from vidpipe.training.controls import MaskedStores

__all__ = [
    "Inputs",
    "StoreInputs",
    "evaluate",
    "explanations",
    "extract",
    "finetune",
    "predict",
    "search_clusters",
    "search_duplicates",
    "search_similar",
    "timelines",
    "train",
    "train_detector",
    "train_embedding",
]

_TIMELINE_SETTINGS = ("window", "stride", "method", "change_cost", "high", "low", "max_overlap", "min_segment", "cuts")
"""Those of `TimelineConfig` that change a timeline; the others choose what the command prints."""
Inputs: TypeAlias = str | Path | Sequence[str | Path]
"""A video, a folder of videos or a CSV with a column `video`; or several of them."""
StoreInputs: TypeAlias = "str | Path | FeatureStore | Mapping[str, FeatureStore] | Sequence[str | Path]"
"""A store or a folder of stores; or several of them; or opened stores by stream."""


def extract(
    inputs: Inputs,
    output: str | Path,
    *,
    prefix: str = "",
    exclude: Sequence[str] = (),
    part: str = "1/1",
    force: bool = False,
    retry_failed: bool = False,
    on_progress: "Callable[[ExtractProgress], None]" = lambda progress: None,
    **settings: Any,
) -> "ExtractSummary":
    """Extract features of videos into a store. Videos that are stored already are skipped.

        vidpipe.extract("videos/", "features", backbone="efficientnet_lite0", num_frames=16)

    Args:
        inputs: the videos.
        output: the store's folder; made if it does not exist.
        prefix: put before each video's id, as a folder.
        exclude: patterns of videos to leave out, such as `rejected/*` and `*.gif`.
        part: `3/8`: extract the third of eight equal shares of the videos.
        force: extract videos again that are stored already.
        retry_failed: try videos again that failed before.
        on_progress: called when a video is done, and about once a second.
        **settings: see `vidpipe extract --help`.

    Returns:
        the numbers of videos and frames stored, and the videos that failed.

    Raises:
        ConfigError: a setting is unknown or has a wrong value.
        UsageError: an input does not exist.
        InputError: an input contains no videos.
        StoreError: the folder is not a store, has another key, or cannot be written.
        WeightsError: the backbone's weights are not available.
    """
    from vidpipe.features.locks import Part
    from vidpipe.stages import extract as stage
    from vidpipe.video.files import find_videos

    check_names(settings, _names("extract"))
    config = ExtractConfig(**settings)
    videos = find_videos(_inputs(inputs), prefix=prefix, exclude=exclude, video_column=config.video_column)
    return stage.extract(
        videos,
        Path(output),
        config=config,
        part=Part.parse(part),
        force=force,
        retry_failed=retry_failed,
        on_progress=on_progress,
    )


def train(
    stores: StoreInputs,
    output: str | Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    tensorboard: bool = False,
    skip_conflicts: bool = False,
    without_people: StoreInputs = (),
    only_people: StoreInputs = (),
    on_epoch: "Callable[[str, Epoch], None]" = lambda head, epoch: None,
    **settings: Any,
) -> "TrainResult":
    """Train a classifier on the features of one or more streams, and the baseline on the mean feature beside it.

        result = vidpipe.train("features", "run", labels="labels.csv")
        result.evaluations["test"]["fusion"].top1

    Args:
        stores: the features: a store, or a folder of stores with one for each stream; or several of them.
        output: the run's folder.
        overwrite: replace the run, or the interrupted training, in this folder.
        resume: continue an interrupted training.
        tensorboard: also write TensorBoard event files.
        skip_conflicts: leave out videos with identical features and different labels, instead of raising an error.
        without_people: with `check_background`, features of the same videos with the people painted out.
        only_people: the same with all but the people painted out.
        on_epoch: called after each epoch with the name of the member (`flow/lstm`) or of the only head (`lstm`).
        **settings: see `vidpipe train --help`; `labels` is the file with the labels.

    Returns:
        the run, its split and its metrics.

    Raises:
        ConfigError: a setting is unknown or has a wrong value.
        UsageError: a store does not exist, a stream is given twice, or settings do not fit the videos.
        StoreError: the folder is not a store.
        LabelsError: the labels do not fit the videos, or cannot be split.
        RunError: the folder contains a run already, or cannot be written.
        TrainingError: a loss is not finite.
    """
    from vidpipe.datasets.streams import choose_streams
    from vidpipe.datasets.warning_collector import collect_warnings
    from vidpipe.stages import train as stage
    from vidpipe.stages.train_rows import train_rows
    from vidpipe.stages.training_videos import label_training_videos

    check_names(settings, _names("train"))
    config, labels = make_config(TrainConfig, settings), make_config(LabelsConfig, settings)
    masked = _open_masked(without_people, only_people, is_used=config.check_background)
    opened = choose_streams(_open_streams(stores, usage=f"vidpipe train STORE -o {output}"), config.stream_names)
    with collect_warnings() as label_warnings:
        labelled = label_training_videos(opened, labels, config, masked)
    if config.targets == "rows":
        if labelled.exam is None or resume or tensorboard:
            raise UsageError("--targets rows needs --labels of intervals, and goes without --resume and --tensorboard")
        return train_rows(
            labelled.exam.windows,
            Path(output),
            config=config,
            overwrite=overwrite,
            label_warnings=label_warnings,
            on_epoch=on_epoch,
        )
    return stage.train(
        labelled.stores,
        labelled.videos,
        Path(output),
        config=config,
        more_splits=labelled.more_splits,
        resume=resume,
        overwrite=overwrite,
        tensorboard=tensorboard,
        skip_conflicts=skip_conflicts,
        label_warnings=label_warnings,
        exam=labelled.exam,
        masked=masked,
        on_epoch=on_epoch,
    )


def finetune(
    run: "str | Path | Run",
    inputs: Inputs,
    output: str | Path,
    *,
    prefix: str = "",
    exclude: Sequence[str] = (),
    overwrite: bool = False,
    resume: bool = False,
    on_video: Callable[[int, int], None] = lambda done, total: None,
    on_epoch: "Callable[[Epoch], None]" = lambda epoch: None,
    **settings: Any,
) -> "FinetuneResult":
    """Fine-tune the backbone of a run together with its heads, and compare it with the frozen one.

        result = vidpipe.finetune("run", "videos/", "tuned", unfreeze="2", epochs=30)
        result.fine_tuning.test.difference

    Args:
        run: the trained run.
        inputs: the videos that its features were extracted from.
        output: the new run's folder.
        prefix: as for `extract`.
        exclude: as for `extract`.
        overwrite: replace the run, or the interrupted training, in this folder.
        resume: continue an interrupted fine-tuning.
        on_video: called after each video that is decoded, with how many are done, and of how many.
        on_epoch: called after each epoch.
        **settings: see `vidpipe finetune --help`.

    Returns:
        the new run, its split and the comparison.

    Raises:
        ConfigError: a setting is unknown or has a wrong value.
        UsageError: the run or an input does not exist, or a setting does not go with the run.
        InputError: a video of the run is missing, has changed, or cannot be decoded.
        RunError: the folder contains a run already, or cannot be written.
        WeightsError: the backbone's weights are not available.
        TrainingError: a loss is not finite, or the memory is too small.
    """
    from vidpipe.stages import finetune as stage
    from vidpipe.video.files import find_videos

    check_names(settings, (*_names_of(FinetuneConfig), *FINETUNE_SETTINGS))
    extract_config = make_config(
        ExtractConfig, {name: settings[name] for name in FINETUNE_SETTINGS if name in settings}
    )
    videos = find_videos(_paths(inputs), prefix=prefix, exclude=exclude, video_column=extract_config.video_column)
    return stage.finetune(
        _open_run(run),
        videos,
        Path(output),
        config=make_config(FinetuneConfig, settings),
        extract=extract_config,
        resume=resume,
        overwrite=overwrite,
        on_video=on_video,
        on_epoch=on_epoch,
    )


def evaluate(
    run: "str | Path | Run", stores: StoreInputs, *, device: str = "auto", **settings: Any
) -> "EvaluationReport":
    """Evaluate a run on labelled videos, without those used for its training or model selection.

        report = vidpipe.evaluate("run", "other_features", labels="other_labels.csv")
        report.evaluations["fusion"].macro_f1

    Args:
        run: the trained run.
        stores: the features of the videos, extracted with the run's settings; as for `train`.
        device: `auto`, `cpu` or `cuda`.
        **settings: of the labels, as in `train`: `labels`, `group_by`, `split`, `skip_missing`, `video_column`,
            `label_column`.

    Returns:
        the metrics of the run's classifier, its parts and its baseline, and the number of videos that were left out.

    Raises:
        ConfigError: a setting is unknown or has a wrong value.
        UsageError: the run or the store does not exist.
        RunError: the store does not fit the run, or the run was trained on every video.
        LabelsError: the labels do not fit the videos or the run's classes.
    """
    from vidpipe.datasets.store_labels import label_store_splits
    from vidpipe.stages import evaluate as stage

    check_names(settings, _names_of(LabelsConfig))
    labels = make_config(LabelsConfig, settings)
    if labels.split == "all":
        raise UsageError("--split all goes with train; a run is evaluated on one split: 1, 2 or 3")
    opened_run = _open_run(run)
    opened = _match_stores(opened_run, stores, usage=f"vidpipe evaluate {opened_run.path} STORE")
    (videos,) = label_store_splits(opened, labels)
    return stage.evaluate(opened_run, opened, videos, device=device)


def predict(
    run: "str | Path | Run",
    inputs: Inputs,
    *,
    top: int = 5,
    min_confidence: float = 0.0,
    store: "StoreInputs | None" = None,
    prefix: str = "",
    exclude: Sequence[str] = (),
    **settings: Any,
) -> "Iterator[Prediction]":
    """Predict the labels of videos with a trained run. Sampling and backbones are the run's own.

        for prediction in vidpipe.predict("run", "new_videos/"):
            print(prediction.video_id, prediction.label, prediction.probability)

    A video that cannot be read gives a prediction with an `error`; the others go on.

    Args:
        run: the trained run.
        inputs: the videos.
        top: number of most probable classes in each prediction.
        min_confidence: if the most probable class has a lower probability, the label is `none of these`.
        store: use features from this store, or folder of stores, where it has them; with `executor="ray"`, a path,
            where the others are added.
        prefix: put before each video's id, as a folder.
        exclude: patterns of videos to leave out, such as `rejected/*` and `*.gif`.
        **settings: of extraction, those that do not change features: `weights`, `device`, `engine`, `decoder`,
            `batch_size`, `workers`, `timeout`, `video_column`, `executor` and those of Ray.

    Returns:
        an iterator over the predictions, in the order of the inputs, each as soon as it is known.

    Raises:
        ConfigError: a setting is unknown or has a wrong value.
        UsageError: the run or an input does not exist.
        InputError: an input contains no videos.
        RunError: the folder is not a run, or the store does not fit it.
        WeightsError: the backbone's weights are not available.
    """
    from vidpipe.stages import predict as stage
    from vidpipe.stages.apply import make_stores
    from vidpipe.video.files import find_videos

    check_names(settings, PREDICT_SETTINGS)
    config = ExtractConfig(**settings)
    opened_run = _open_run(run)
    opened_store: FeatureStore | Mapping[str, FeatureStore] | None = None
    if store is not None:
        usage = f"vidpipe predict {opened_run.path} … --store STORE"
        if config.executor == "ray" and isinstance(store, str | Path):
            opened_store = make_stores(Path(store), opened_run.keys)
        else:
            opened_store = _match_stores(opened_run, store, usage=usage)
    videos = find_videos(_inputs(inputs), prefix=prefix, exclude=exclude, video_column=config.video_column)
    return stage.predict(opened_run, videos, top=top, min_confidence=min_confidence, store=opened_store, config=config)


def timelines(
    run: "str | Path | Run",
    inputs: Inputs,
    *,
    min_confidence: float = 0.0,
    store: str | Path | None = None,
    prefix: str = "",
    exclude: Sequence[str] = (),
    **settings: Any,
) -> "Iterator[Timeline]":
    """Find the segments of long videos with a trained run. Sampling and backbones are the run's own.

        for timeline in vidpipe.timelines("run", "long.mp4", store="dense"):
            for segment in timeline.segments:
                print(segment.start_seconds, segment.stop_seconds, segment.label, segment.probability)

    A video that cannot be read gives a timeline with an `error`; the others go on.

    Args:
        run: the trained run.
        inputs: the videos.
        min_confidence: segments with a lower probability are left out.
        store: a folder to keep the features in; made if it does not exist. What it has is not computed again.
        prefix: put before each video's id, as a folder.
        exclude: patterns of videos to leave out, such as `rejected/*` and `*.gif`.
        **settings: of the timeline: `window`, `stride`, `method`, `change_cost`, `high`, `low`, `min_segment`, `cuts`;
            and those of extraction that do not change features, as for `predict`.

    Returns:
        an iterator over the timelines, in the order of the inputs, each as soon as it is known.

    Raises:
        ConfigError: a setting is unknown or has a wrong value.
        UsageError: the run or an input does not exist, or the windows do not go with the run.
        InputError: an input contains no videos.
        RunError: the folder is not a run.
        StoreError: the store has other features, or cannot be written.
        WeightsError: the backbone's weights are not available.
    """
    from vidpipe.stages import timeline as stage
    from vidpipe.video.files import find_videos

    check_names(settings, (*_TIMELINE_SETTINGS, *PREDICT_SETTINGS))
    timeline, config = make_config(TimelineConfig, settings), make_config(ExtractConfig, settings)
    opened_run = _open_run(run)
    videos = find_videos(_paths(inputs), prefix=prefix, exclude=exclude, video_column=config.video_column)
    return stage.predict_timelines(
        opened_run,
        videos,
        timeline=timeline,
        min_confidence=min_confidence,
        store_path=None if store is None else Path(store),
        config=config,
    )


def explanations(
    run: "str | Path | Run",
    inputs: Inputs,
    *,
    label: str | None = None,
    against: str | None = None,
    prefix: str = "",
    exclude: Sequence[str] = (),
    **settings: Any,
) -> "Iterator[ExplainedVideo | VideoFailure]":
    """Explain the labels that a trained run gives to videos: what each stream, row and place spoke for.

        for explained in vidpipe.explanations("run", "new_video.mp4"):
            for stream in explained.explanation.streams:
                print(stream.name, stream.share, stream.shares, stream.places)

    Args:
        run: the trained run.
        inputs: the videos.
        label: the label to explain; None for the predicted one.
        against: the label to compare it with; None for the mean of all.
        prefix: put before each video's id, as a folder.
        exclude: patterns of videos to leave out, such as `rejected/*` and `*.gif`.
        **settings: of extraction: `weights`, `device`, `decoder`, `workers`, `timeout`, `video_column`.

    Returns:
        an iterator over the explanations, and the failures of videos that cannot be read, as they get done.

    Raises:
        ConfigError: a setting is unknown or has a wrong value.
        UsageError: the run or an input does not exist, or the run does not have a label.
        InputError: an input contains no videos.
        RunError: the folder is not a run, or it labels the rows of long videos.
        WeightsError: the backbone's weights are not available.
    """
    from vidpipe.stages import explain as stage
    from vidpipe.video.files import find_videos

    check_names(settings, EXPLAIN_SETTINGS)
    config = ExtractConfig(**settings)
    videos = find_videos(_paths(inputs), prefix=prefix, exclude=exclude, video_column=config.video_column)
    questions = {video.id: (label, against) for video in videos}
    return stage.explain(_open_run(run), videos, questions=questions, config=config)


def train_detector(
    annotations: str | Path,
    videos: str | Path,
    output: str | Path,
    *,
    detector: str,
    val_annotations: str | Path | None = None,
    on_step: "Callable[[Step], None]" = lambda step: None,
    **settings: Any,
) -> "DetectorTraining":
    """Train a detector on the boxes, masks or key points of one's own videos.

        result = vidpipe.train_detector("boxes.json", "videos", "mine.safetensors", detector="fasterrcnn_mobilenet")
        result.scores.boxes.ap50

    Args:
        annotations: COCO JSON over frames of the videos, or over pictures.
        videos: the folder of the videos and pictures.
        output: the .safetensors file to write, for `detector_weights`.
        detector: its name.
        val_annotations: of the frames that choose the best epoch; None sets some videos aside.
        on_step: called after each batch and each epoch.
        **settings: see `vidpipe regions train --help`.

    Returns:
        the detector's file, and its metrics on the validation frames.

    Raises:
        ConfigError: a setting is unknown or has a wrong value.
        UsageError: the detector cannot be trained, or a setting does not go with it.
        LabelsError: the annotations do not fit the videos, or have not what the detector learns.
        InputError: there is one video only, and none to validate on.
        VideoError: a video or picture cannot be read.
        WeightsError: the weights to begin from are not available, or belong to another network.
        TrainingError: a loss is not finite.
        InterruptedTrainingError: Ctrl-C; the best epoch so far is written.
    """
    from vidpipe.regions.training import train as training

    check_names(settings, _names_of(DetectorConfig))
    return training.train_detector(
        Path(annotations),
        Path(videos),
        Path(output),
        detector=detector,
        config=DetectorConfig(**settings),
        val_annotations=None if val_annotations is None else Path(val_annotations),
        on_step=on_step,
    )


def search_clusters(
    stores: StoreInputs,
    output: str | Path,
    *,
    embedding: "str | Path | Embedding | None" = None,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    **settings: Any,
) -> "tuple[Clustering, tuple[Path, ...]]":
    """Find clusters of videos that look alike, and write a page that shows and names them.

        clustering, files = vidpipe.search_clusters("features", "clusters")
        for cluster in clustering.clusters:
            print(cluster.number, cluster.medoid, cluster.video_ids)

    Args:
        stores: the features, as for `train`.
        output: the folder of the page, the map and `clusters.csv`.
        embedding: a trained embedding to use; its streams are found by their keys.
        overwrite: replace the clusters in this folder.
        on_progress: called with the numbers of videos that are read and to read.
        **settings: see `vidpipe search clusters --help`; with `labels`, clusters have the names of most of their
            videos.

    Returns:
        the clusters, and the files.

    Raises:
        ConfigError: a setting is unknown or has a wrong value.
        UsageError: a store does not exist, or the folder contains clusters already.
        StoreError: the folder is not a store, or has other features than the embedding.
        InputError: there are too few videos.
        LabelsError: the labels cannot be read.
        RunError: the embedding cannot be loaded.
    """
    from vidpipe.search.clustering import cluster_stores

    naming = ("labels", "video_column", "label_column")
    check_names(settings, [*_names_of(ClustersConfig), *naming])
    config, labels = make_config(ClustersConfig, settings), make_config(LabelsConfig, settings)
    usage = f"vidpipe search clusters STORE -o {output}"
    if embedding is not None and config.streams is not None:
        raise UsageError("--streams does not go with --embedding, which has its own streams; give one of them")
    learned = None if embedding is None else _open_embedding(embedding)
    opened = (
        _choose(stores, config.streams, usage=usage)
        if learned is None
        else _match_embedding(learned, stores, usage=usage)
    )
    naming_config = replace(labels, skip_missing=True)
    return cluster_stores(
        opened,
        Path(output),
        config=config,
        labels=naming_config,
        embedding=learned,
        overwrite=overwrite,
        on_progress=on_progress,
    )


def train_embedding(
    stores: StoreInputs, output: str | Path, *, overwrite: bool = False, **settings: Any
) -> "Embedding":
    """Train an embedding: one vector for each video, near those of videos with the same label.

        embedding = vidpipe.train_embedding("features", "embedding", labels="labels.csv")
        embedding.about["metrics"]["learned"]["recall_at_5"]

    Args:
        stores: the features, as for `train`.
        output: the embedding's folder.
        overwrite: replace the embedding in this folder.
        **settings: see `vidpipe search train --help`; `labels` is the file with the labels.

    Returns:
        the embedding, and its metrics on folds over groups.

    Raises:
        ConfigError: a setting is unknown or has a wrong value.
        UsageError: a store does not exist, or the folder holds something else.
        StoreError: the folder is not a store.
        LabelsError: the labels do not fit the videos, or there are fewer than two.
        RunError: the folder contains an embedding already, or cannot be written.
        TrainingError: a loss is not finite.
    """
    from vidpipe.datasets.store_labels import label_store_splits
    from vidpipe.search.learning import learn_embedding

    check_names(settings, [*_names_of(EmbeddingConfig), *_names_of(LabelsConfig)])
    config, labels = make_config(EmbeddingConfig, settings), make_config(LabelsConfig, settings)
    if labels.split == "all":
        raise UsageError("--split all goes with train; an embedding is trained on one split: 1, 2 or 3")
    opened = _choose(stores, config.streams, usage=f"vidpipe search train STORE -o {output}")
    (videos,) = label_store_splits(opened, labels)
    return learn_embedding(opened, videos, Path(output), config=config, overwrite=overwrite)


def search_similar(
    store: "str | Path | FeatureStore",
    videos: Sequence[str | Path],
    *,
    number: int = 10,
    stream: str | None = None,
    embedding: "str | Path | Embedding | None" = None,
    **settings: Any,
) -> "Iterator[SimilarResult]":
    """Find the videos of a store that are most like other videos.

        for result in vidpipe.search_similar("features", ["new_video.mp4"]):
            for found in result.videos:
                print(found.rank, found.video, found.score, found.video_start_seconds, found.video_stop_seconds)

    A video that cannot be read gives a result with an `error`; the others go on.

    Args:
        store: the features to search in: a store, or a folder of stores.
        videos: video files, and ids of videos in the store.
        number: how many videos to find for each.
        stream: the stream of a folder of stores; None for the first.
        embedding: a trained embedding that ranks the videos; its streams are found by their keys.
        **settings: of extraction, those that do not change features: `weights`, `device`, `engine`, `decoder`,
            `batch_size`, `workers`, `timeout`.

    Returns:
        an iterator over the results, in the order of the videos.

    Raises:
        ConfigError: a setting is unknown or has a wrong value.
        UsageError: the store does not exist, or a video is neither a file nor an id of the store.
        StoreError: the store has fewer than two videos, other features than the embedding, or cannot be read.
        RunError: the weights are not those of the store, or the embedding cannot be loaded.
        WeightsError: the backbone's weights are not available.
    """
    from vidpipe.stages import search as stage

    check_names(settings, SEARCH_SETTINGS)
    config = ExtractConfig(**settings)
    if embedding is None:
        return stage.search_similar(_open_searched(store, stream), videos, number=number, config=config)
    embedded = _embed(embedding, store, stream, verb="similar")
    return stage.search_similar(embedded.first_store, videos, number=number, embedded=embedded, config=config)


def search_duplicates(
    store: "str | Path | FeatureStore",
    *,
    threshold: float = DUPLICATE_THRESHOLD,
    stream: str | None = None,
    embedding: "str | Path | Embedding | None" = None,
    **settings: Any,
) -> "list[DuplicateGroup]":
    """Find the videos of a store that show the same footage, also where it was altered.

        for group in vidpipe.search_duplicates("features"):
            print([video.video for video in group.members if video.keep], len(group.members))

    Args:
        store: the features: a store, or a folder of stores.
        threshold: the score from which on a pair counts.
        stream: the stream of a folder of stores; None for the first.
        embedding: a trained embedding; each video is compared with those nearest in it. The score is the same.
        **settings: `executor` and `ray_address`, as for `extract`.

    Returns:
        the groups, those with the most videos first.

    Raises:
        ConfigError: a setting is unknown or has a wrong value.
        UsageError: the store does not exist.
        StoreError: the store has fewer than two videos, other features than the embedding, or cannot be read.
        RunError: the embedding cannot be loaded.
        ExecutorError: Ray cannot be reached, or one of its nodes cannot take part.
    """
    from vidpipe.stages import search as stage

    check_names(settings, DUPLICATES_SETTINGS)
    config = ExtractConfig(**settings)
    if embedding is None:
        return stage.search_duplicates(_open_searched(store, stream), threshold=threshold, config=config)
    embedded = _embed(embedding, store, stream, verb="duplicates")
    return stage.search_duplicates(embedded.first_store, threshold=threshold, embedded=embedded, config=config)


def _embed(
    embedding: "str | Path | Embedding", store: "str | Path | FeatureStore", stream: str | None, *, verb: str
) -> "EmbeddedVideos":
    from vidpipe.search.embedded import EmbeddedVideos

    if stream is not None:
        raise UsageError("stream does not go with embedding, which has its own streams; give one of them")
    learned = _open_embedding(embedding)
    stores = _match_embedding(learned, store, usage=f"vidpipe search {verb} STORE … --embedding EMB")
    return EmbeddedVideos(learned, stores)


def _open_searched(store: "str | Path | FeatureStore", stream: str | None) -> "FeatureStore":
    from vidpipe.search.streams import open_stream

    return open_stream(Path(store), stream) if isinstance(store, str | Path) else store


def _names(section: str) -> list[str]:
    return [name for config in SECTIONS[section] for name in _names_of(config)]


def _names_of(config: type) -> list[str]:
    return [setting.name for setting in settings_of(config)]


def _inputs(inputs: Inputs) -> list[Path | str]:
    """Paths, and URLs as they are."""
    some = [inputs] if isinstance(inputs, str | Path) else inputs
    return [one if isinstance(one, str) and is_url(one) else Path(one) for one in some]


def _paths(inputs: Inputs) -> list[Path]:
    return [Path(one) for one in ([inputs] if isinstance(inputs, str | Path) else inputs)]


def _open_streams(stores: StoreInputs, *, usage: str) -> "Mapping[str, FeatureStore]":
    from vidpipe.datasets.streams import name_stores, open_streams
    from vidpipe.features.store import FeatureStore

    if isinstance(stores, FeatureStore | Mapping):
        return name_stores(stores)
    return open_streams(_paths(stores), usage=usage)


def _choose(stores: StoreInputs, streams: str | None, *, usage: str) -> "dict[str, FeatureStore]":
    from vidpipe.datasets.streams import choose_streams

    return choose_streams(_open_streams(stores, usage=usage), streams.split(",") if streams else ())


def _open_embedding(embedding: "str | Path | Embedding") -> "Embedding":
    from vidpipe.search.embedding import Embedding

    return embedding if isinstance(embedding, Embedding) else Embedding.open(embedding)


def _match_embedding(embedding: "Embedding", stores: StoreInputs, *, usage: str) -> "dict[str, FeatureStore]":
    from vidpipe.datasets.streams import name_stores
    from vidpipe.features.store import FeatureStore

    if not isinstance(stores, FeatureStore | Mapping):
        return embedding.match(_paths(stores), usage=usage)
    embedding.check(stores)
    return {name: store for name, store in name_stores(stores).items() if name in embedding.keys}


def _open_masked(without_people: StoreInputs, only_people: StoreInputs, *, is_used: bool) -> "MaskedStores":
    from vidpipe.training.controls import MaskedStores

    given = {"without_people": without_people, "only_people": only_people}
    opened = {
        name: tuple(_open_streams(stores, usage=f"vidpipe train … --{name.replace('_', '-')} STORE").values())
        for name, stores in given.items()
        if isinstance(stores, str | Path) or stores
    }
    if opened and not is_used:
        raise UsageError(f"--{next(iter(opened)).replace('_', '-')} goes with --check-background; give both")
    return MaskedStores(**opened)


def _match_stores(run: "Run", stores: StoreInputs, *, usage: str) -> "FeatureStore | Mapping[str, FeatureStore]":
    from vidpipe.datasets.streams import match_stores

    return stores if isinstance(stores, Mapping) else match_stores(run.keys, _paths(stores), usage=usage)


def _open_run(run: "str | Path | Run") -> "Run":
    from vidpipe.runs.run import Run

    return run if isinstance(run, Run) else Run.open(run)
