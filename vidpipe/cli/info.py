"""vidpipe info"""

import stat
from math import fsum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vidpipe.cli.options import LocalPath, format_option, json_line, printable, vidpipe_command
from vidpipe.errors import InputError, UsageError, VideoError

if TYPE_CHECKING:
    from vidpipe.features.store import FeatureStore

__all__ = ["command"]


@vidpipe_command(name="info", short_help="Show what a store, a run or a video holds.")
@click.argument("path", type=LocalPath())
@format_option("table", "json")
def command(path: Path, format_: str) -> None:
    """Show what a store, a run or a video holds.

    For a folder of stores, it shows each store.

    \b
    vidpipe info features
    vidpipe info run --format json
    vidpipe info video.mp4
    """
    from vidpipe.cli.streams import for_each_store

    kind, shown = _kind_of(path), list[dict[str, Any]]()

    def show(facts: dict[str, Any]) -> None:
        if shown and format_ == "table":
            click.echo()
        shown.append(facts)
        _show(facts, format_)

    if kind == "store":
        for_each_store(path, lambda store: show(_store_facts(store)))
    else:
        show(_video_facts(path) if kind == "video" else _run_facts(path))


def _show(facts: dict[str, Any], format_: str) -> None:
    if format_ == "json":
        click.echo(json_line(facts))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        text = json_line(value) if isinstance(value, (dict, list, tuple)) else printable(str(value))
        click.echo(f"{name.replace('_', ' '):<{width}}  {text}")


def _kind_of(path: Path) -> str:
    """Return `video`, `run`, or `store` for a store and for a folder of stores."""
    from vidpipe.features.streams import store_folders
    from vidpipe.runs.run_folder import finish_replacement

    finish_replacement(path)
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
        if not is_folder:
            return "video"
        if (path / "store.json").exists():
            return "store"
        if (path / "run.json").exists():
            return "run"
        if store_folders(path):
            return "store"
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{path}: no such file or folder") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    raise InputError(f"{path}: neither a feature store (store.json) nor a run (run.json)")


def _video_facts(path: Path) -> dict[str, Any]:
    from dataclasses import asdict

    from vidpipe.video.reader import open_video

    try:
        reader = open_video(path)
    except VideoError as error:
        raise type(error)(f"{path}: {error}") from error
    return {
        "kind": "video",
        "path": str(path),
        **asdict(reader.info),
        "first_pts_seconds": float(reader.pts_seconds[0]),
    }


def _store_facts(store: "FeatureStore") -> dict[str, Any]:
    num_rows, num_damaged, seconds = 0, 0, list[float]()
    for row in store.rows():
        num_rows += row.length
        num_damaged += row.info.damaged
        seconds.append(row.info.duration_seconds)
    return {
        "kind": "store",
        "path": str(store.path),
        "videos": len(store),
        "frames": num_rows // store.key.num_cells,
        "video_seconds": round(fsum(seconds), 3),
        "size_bytes": sum(path.stat().st_size for path in store.shard_paths),
        "shards": len(store.shards),
        "damaged": num_damaged,
        "failed": len(store.failures),
        "repeated": store.count_repeated(),
        **store.key.as_dict(),
    }


def _run_facts(path: Path) -> dict[str, Any]:
    from collections import Counter

    from vidpipe.report.collect import find_verdict
    from vidpipe.runs.run import Run

    run = Run.open(path)
    evaluation_set, verdict = run.evaluation_set, find_verdict(run)
    top1 = {name: round(metrics["top1"], 4) for name, metrics in run.metrics.get(evaluation_set, {}).items()}
    return {
        "kind": "run",
        "path": str(path),
        **({"verdict": verdict} if verdict else {}),
        "head": run.config.head,
        "classes": len(run.class_names),
        "class_names": run.class_names,
        "videos": dict(Counter(row.split for row in run.splits)),
        "learned_from": run.learned_subsets,
        "grouping": run.grouping,
        **({"choice": run.choice} if run.choice else {}),
        **({"warnings": run.warnings} if run.warnings else {}),
        **({f"{evaluation_set}_top1": top1} if evaluation_set else {}),
        **({"weights": {one.member.name: round(one.weight, 4) for one in run.members}} if len(run.members) > 1 else {}),
        "streams": [{"name": one.name, "dim": one.dim, **one.key.as_dict()} for one in run.streams],
    }
