"""The folder of a clustering.

DIR/
  clusters.html   each cluster with frames of its videos, a field for its name, and the map
  clusters.png    the map
  clusters.csv    video,label,cluster: labels for `vidpipe train --labels`, written last
"""

import base64
import csv
import io
import os
from dataclasses import dataclass
from pathlib import Path

from vidpipe.errors import UsageError, VidpipeError
from vidpipe.features.sources import file_of
from vidpipe.features.store import FeatureStore
from vidpipe.html_pages import render_page, script_json, write_whole
from vidpipe.records import VideoFile
from vidpipe.search.cluster_map import cluster_colours, draw_map
from vidpipe.search.clusters import Cluster, Clustering
from vidpipe.video.thumbnails import THUMBNAIL_PIXELS, Thumbnail, read_thumbnails

__all__ = ["check_clusters_folder", "write_clusters"]

_PAGE, _MAP, _TABLE = "clusters.html", "clusters.png", "clusters.csv"
_NUM_TYPICAL, _NUM_ODD = 3, 2
"""Videos of a cluster that are shown."""
_MAX_SHOWN = 60
"""Clusters with frames; decoding the videos of all of many would take long."""


@dataclass(frozen=True)
class _Shown:
    video_id: str
    role: str
    thumbnails: tuple[Thumbnail, ...]
    problem: str


def check_clusters_folder(folder: Path, *, overwrite: bool) -> None:
    """Check that no clustering is in a folder yet: a person may have named its clusters.

    Args:
        folder: where clusters are to be written.
        overwrite: replace those that are there.

    Raises:
        UsageError: there are clusters, and `overwrite` is off, or the path is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: a file; give a folder with -o")
    if (folder / _TABLE).exists() and not overwrite:
        raise UsageError(f"{folder / _TABLE}: exists; give another folder with -o, or --overwrite to replace it")


def write_clusters(clustering: Clustering, store: FeatureStore, folder: Path) -> tuple[Path, ...]:
    """Write the page, the map and the table of a clustering.

    Args:
        clustering: the clusters.
        store: knows where the files of the videos lie.
        folder: where to write; made if it does not exist.

    Returns:
        The files.

    Raises:
        VidpipeError: a file cannot be written.
    """
    picture = draw_map(clustering)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / _MAP, picture)
        write_whole(_render(clustering, store, picture), folder / _PAGE, kind="the page", error=VidpipeError)
        _write(folder / _TABLE, _table(clustering).encode())
    except OSError as error:
        raise VidpipeError(f"{folder}: cannot be written ({error.strerror}); give another folder with -o") from error
    return folder / _PAGE, folder / _MAP, folder / _TABLE


def _write(path: Path, content: bytes) -> None:
    aside = path.with_name(f".{path.name}.partial")
    aside.write_bytes(content)
    os.replace(aside, path)


def _rows(clustering: Clustering) -> list[tuple[str, str, str]]:
    """Video, label and cluster: a video's own label, or its cluster's name; videos without both have no label."""
    rows = []
    for cluster in clustering.clusters:
        rows += [
            (one, clustering.labels.get(one, cluster.name), str(cluster.number)) for one in sorted(cluster.video_ids)
        ]
    return rows + [(one, clustering.labels.get(one, ""), "") for one in clustering.unclustered]


def _table(clustering: Clustering) -> str:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerows([("video", "label", "cluster"), *_rows(clustering)])
    return stream.getvalue()


# The page


def _render(clustering: Clustering, store: FeatureStore, picture: bytes) -> str:
    clusters = clustering.clusters
    shown = _read_shown(clusters[:_MAX_SHOWN], store)
    known = [one in clustering.labels for one, _, _ in _rows(clustering)]
    data = {
        "names": {str(cluster.number): cluster.name for cluster in clusters},
        "rows": [[*row, is_known] for row, is_known in zip(_rows(clustering), known, strict=True)],
    }
    return render_page(
        "vidpipe.search",
        "clusters.html",
        assets="clusters",
        clustering=clustering,
        clusters=[
            (cluster, colour, shown.get(cluster.number, ()))
            for cluster, colour in zip(clusters, cluster_colours(len(clusters)), strict=True)
        ],
        map_uri=f"data:image/png;base64,{base64.b64encode(picture).decode()}",
        thumbnail_pixels=THUMBNAIL_PIXELS,
        data=script_json(data),
    )


def _read_shown(clusters: tuple[Cluster, ...], store: FeatureStore) -> dict[int, list[_Shown]]:
    """By cluster, its most typical and its oddest videos with their frames."""
    roles = {cluster.number: _roles(cluster) for cluster in clusters}
    ids = [video_id for chosen in roles.values() for video_id in chosen]
    files = {video_id: _file(store, video_id) for video_id in ids}
    found = [file for file in files.values() if file is not None and file.path.is_file()]
    thumbnails, problems = read_thumbnails(found, store.key.preprocessing)
    missing = {video_id: "the file is not found" for video_id in ids if video_id not in thumbnails}
    return {
        number: [
            _Shown(one, role, thumbnails.get(one, ()), problems.get(one, missing.get(one, "")))
            for one, role in chosen.items()
        ]
        for number, chosen in roles.items()
    }


def _roles(cluster: Cluster) -> dict[str, str]:
    ids = cluster.video_ids
    odd = ids[max(_NUM_TYPICAL, len(ids) - _NUM_ODD) :]
    return {ids[0]: "medoid", **dict.fromkeys(ids[1:_NUM_TYPICAL], "typical"), **dict.fromkeys(odd, "odd")}


def _file(store: FeatureStore, video_id: str) -> VideoFile | None:
    source = store.place(video_id)[1].source
    return VideoFile(video_id, file_of(source)) if source.root else None
