"""The map of clusters as PNG: a point for each video; near videos look alike."""

import math
from io import BytesIO

import matplotlib.figure
import numpy as np

from vidpipe.search.clusters import Clustering
from vidpipe.version import __version__

__all__ = ["cluster_colours", "draw_map"]

_COLOURS = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#d55e00",
    "#8a7500",
    "#6a51a3",
    "#525252",
    "#b2182b",
)
_MARKERS = "os^Dvp"
"""Colours repeat with the next marker."""
_MAX_NUMBERED = 60
_POINT_AREA, _MANY_VIDEOS = 22.0, 1000
"""Of a point, in square points; points of more videos are smaller, so that they do not hide each other."""


def cluster_colours(num_clusters: int) -> list[str]:
    """Return a colour for each cluster; after ten, they repeat."""
    return [_COLOURS[number % len(_COLOURS)] for number in range(num_clusters)]


def draw_map(clustering: Clustering) -> bytes:
    """Draw the map.

    Args:
        clustering: the clusters.

    Returns:
        A PNG: the number of a cluster stands at its middle, and crosses are videos in none.
    """
    figure = matplotlib.figure.Figure(figsize=(7.2, 6), layout="constrained")
    axes = figure.subplots()
    area = _POINT_AREA * min(1.0, math.sqrt(_MANY_VIDEOS / max(clustering.num_videos, 1)))
    if clustering.unclustered:
        places = np.array([clustering.points[video_id] for video_id in clustering.unclustered])
        width = math.sqrt(area / _POINT_AREA)
        axes.scatter(places[:, 0], places[:, 1], s=0.8 * area, marker="x", color="#8c959f", linewidths=width)
    colours = cluster_colours(len(clustering.clusters))
    for cluster, colour in zip(clustering.clusters, colours, strict=True):
        places = np.array([clustering.points[video_id] for video_id in cluster.video_ids])
        marker = _MARKERS[(cluster.number - 1) // len(_COLOURS) % len(_MARKERS)]
        axes.scatter(places[:, 0], places[:, 1], s=area, marker=marker, color=colour, alpha=0.8, linewidths=0)
        if cluster.number <= _MAX_NUMBERED:
            middle = np.median(places, axis=0)
            frame = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": colour, "alpha": 0.9}
            axes.text(middle[0], middle[1], str(cluster.number), ha="center", va="center", fontsize=9, bbox=frame)
    axes.set(xticks=[], yticks=[], title="t-SNE" if clustering.is_tsne else "first two principal components")
    stream = BytesIO()
    figure.savefig(stream, format="png", dpi=130, metadata={"Software": f"vidpipe {__version__}"})
    return stream.getvalue()
