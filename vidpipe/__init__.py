"""vidpipe: train an action-recognition model on a folder of videos, and apply it to more videos.

    import vidpipe

    vidpipe.extract("videos/", "features")
    vidpipe.train("features", "run", labels="labels.csv")
    for prediction in vidpipe.predict("run", "new_videos/"):
        print(prediction.video_id, prediction.label)

Each name is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vidpipe.version import __version__

if TYPE_CHECKING:
    from vidpipe.api import (
        evaluate,
        explanations,
        extract,
        finetune,
        predict,
        search_clusters,
        search_duplicates,
        search_similar,
        timelines,
        train,
        train_detector,
        train_embedding,
    )
    from vidpipe.features.store import FeatureStore
    from vidpipe.runs.run import Run

__all__ = [
    "FeatureStore",
    "Run",
    "__version__",
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

_HOMES = {
    "FeatureStore": "vidpipe.features.store",
    "Run": "vidpipe.runs.run",
    **dict.fromkeys(
        ("evaluate", "explanations", "extract", "finetune", "predict", "timelines", "train"), "vidpipe.api"
    ),
    **dict.fromkeys(("search_clusters", "search_duplicates", "search_similar"), "vidpipe.api"),
    **dict.fromkeys(("train_detector", "train_embedding"), "vidpipe.api"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
