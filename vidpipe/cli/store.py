"""vidpipe store"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vidpipe.cli.options import (
    OUTPUT_PATH,
    LocalPath,
    find_inputs,
    format_option,
    inputs_argument,
    json_line,
    prefix_option,
    printable,
    vidpipe_command,
)
from vidpipe.cli.streams import for_each_store
from vidpipe.errors import UsageError, count_of, first_few

if TYPE_CHECKING:
    from vidpipe.features.maintenance import StoreSize
    from vidpipe.features.store import FeatureStore
    from vidpipe.records import VideoFile

__all__ = ["command", "compact", "export", "merge", "prune", "repair", "verify"]

store_argument = click.argument("store", type=LocalPath())
output_option = click.option("-o", "--output", required=True, type=OUTPUT_PATH, help="A new folder, or an empty one.")


@vidpipe_command(name="verify", short_help="Read all of a store and report damage.")
@store_argument
@format_option("table", "json")
def verify(store: Path, format_: str) -> None:
    """Read all of a store and report what is damaged.

    The index is compared with the shards. The exit code is 3 where something is damaged.

    \b
    vidpipe store verify features
    """
    for_each_store(store, lambda opened: _verify(opened, format_))


def _verify(store: "FeatureStore", format_: str) -> bool:
    """Show what is damaged in a store; return whether nothing is."""
    from vidpipe.features import maintenance

    damage = maintenance.find_damage(store)
    if format_ == "json":
        rows = [{"shard": str(one.shard), "video": one.video_id, "reason": one.reason} for one in damage]
        click.echo(json_line({"path": str(store.path), "damage": rows}))
    elif damage:
        click.echo("\n".join(printable(str(one)) for one in damage))
        click.echo(f"{len(damage)} damaged; `vidpipe store repair {store.path}` drops them", err=True)
    else:
        contents = f"{count_of(len(store), 'video')} in {count_of(len(store.shards), 'shard')}"
        click.echo(f"{store.path}: {contents}, no damage")
        _show_lost(store)
    return not damage


def _show_lost(store: "FeatureStore") -> None:
    """Name the videos that only the index knows."""
    if lost := store.find_lost():
        click.echo(
            f"{store.path}: its index knows {count_of(len(lost), 'video')} of shards that are gone: "
            f"{printable(first_few(lost))}. If they were not dropped on purpose, extract them again; "
            f"`vidpipe store repair {store.path}` makes the index forget them",
            err=True,
        )


@vidpipe_command(name="repair", short_help="Drop what is damaged; extract makes it again.")
@store_argument
def repair(store: Path) -> None:
    """Drop what is damaged, so that the next extract makes it again.

    Damaged videos are removed from their shard; a shard that cannot be read is moved to STORE/quarantine. What crashed
    writers left is removed. Refused while another process writes to the store.

    \b
    vidpipe store repair features
    """
    for_each_store(store, _repair)


def _repair(store: "FeatureStore") -> None:
    from vidpipe.features import maintenance

    dropped = maintenance.repair(store)
    for one in dropped:
        click.echo(f"dropped: {printable(str(one))}")
    outcome = f"{len(dropped)} dropped; the next extract makes them again" if dropped else "nothing is damaged"
    click.echo(f"{store.path}: {outcome}")


@vidpipe_command(name="merge", short_help="Copy several stores into one.")
@click.argument("stores", metavar="STORE…", nargs=-1, required=True, type=LocalPath())
@output_option
def merge(stores: tuple[Path, ...], output: Path) -> None:
    """Copy stores that were made with the same settings into one.

    \b
    vidpipe store merge features_a features_b -o features
    """
    from vidpipe.features import maintenance
    from vidpipe.features.streams import open_store

    opened = [open_store(store, usage="vidpipe store merge STORE … -o OUT") for store in stores]
    num_videos = maintenance.merge(opened, output)
    click.echo(f"{output}: {count_of(num_videos, 'video')} of {count_of(len(stores), 'store')}")


@vidpipe_command(name="compact", short_help="Free the space of replaced features; join small shards.")
@store_argument
def compact(store: Path) -> None:
    """Free the space of features that newer ones replaced, and join small shards.

    Refused while another process writes to the store.

    \b
    vidpipe store compact features
    """
    for_each_store(store, _compact)


def _compact(store: "FeatureStore") -> None:
    from vidpipe.features import maintenance

    before, after = maintenance.compact(store)
    click.echo(f"{store.path}: {_format_size(before)} -> {_format_size(after)}")


def _format_size(size: "StoreSize") -> str:
    shards, sequences = count_of(size.num_shards, "shard"), count_of(size.num_sequences, "sequence")
    return f"{shards}, {sequences}, {size.size_bytes / 1e6:.1f} MB"


@vidpipe_command(name="prune", short_help="Drop videos whose files no longer exist.")
@store_argument
@inputs_argument
@prefix_option
@click.option("--yes", is_flag=True, help="Drop them; without it they are only listed.")
def prune(store: Path, inputs: tuple[Path, ...], prefix: str, yes: bool) -> None:
    """Drop the stored videos of INPUT whose files no longer exist, and the failures of such files.

    Give the INPUT and --prefix that were given to extract. Videos of other folders or prefixes stay. Without --yes it
    only lists what it would drop. Refused while another process writes to the store.

    \b
    vidpipe store prune features videos/
    vidpipe store prune features videos/ --yes
    """

    @cache
    def find() -> "list[VideoFile]":
        videos, unreadable = find_inputs(inputs, prefix=prefix)
        for line in unreadable:
            click.echo(line, err=True)
        return videos

    for_each_store(store, lambda opened: _prune(opened, find(), yes=yes))


def _prune(store: "FeatureStore", videos: "list[VideoFile]", *, yes: bool) -> None:
    from vidpipe.features import inventory

    gone, failures = inventory.prune(store, videos, dry_run=not yes)
    verb = "dropped" if yes else "gone"
    for video_id in gone:
        click.echo(f"{verb}: {printable(video_id)}")
    for video_id in failures:
        click.echo(f"{verb}: {printable(video_id)} (failed)")
    found = count_of(len(gone), "video") + (f" and {count_of(len(failures), 'failure')}" if failures else "")
    if not gone and not failures:
        click.echo(f"{store.path}: nothing to drop; the files of all stored videos of these folders exist")
    elif yes:
        click.echo(f"{store.path}: {found} dropped; {count_of(len(store), 'video')} left")
    else:
        click.echo(f"{store.path}: {found} to drop; --yes drops what is listed")


@vidpipe_command(name="export", short_help="Write features as plain files, for other programs.")
@store_argument
@output_option
@format_option("npy", "h5")
@click.option(
    "--for",
    "program",
    type=click.Choice(("actionformer", "opentad", "mstcn")),
    help="Write what this program reads: features, annotations, and the fps, stride and offset of the rows.",
)
@click.option(
    "--labels",
    type=LocalPath(),
    help="With --for: intervals, a CSV with columns video,start_seconds,stop_seconds,label or ActivityNet's JSON.",
)
def export(store: Path, output: Path, format_: str, program: str | None, labels: Path | None) -> None:
    """Write features as plain files, for training code of your own or for other programs.

    \b
    npy  a file (T, D) for each video, under the video's own path, and index.csv, a table of them
    h5   one features.h5 with features/<id> (T, D) and pts_seconds/<id> (T,)

    --for needs a store of `extract --sampling fps`, or of windows at `--window-stride`. For a folder of stores, each
    store is written to a folder of its name.

    \b
    vidpipe store export features -o exported
    vidpipe store export features -o exported --format h5
    vidpipe store export features -o exported --for actionformer --labels intervals.csv
    """
    if program is None and labels is not None:
        raise UsageError("--labels goes with --for actionformer, opentad or mstcn; plain files have no labels")
    write = _plain_export(format_) if program is None else _export_for(program, labels)

    def step(opened: "FeatureStore") -> None:
        folder = output / opened.path.name if opened.path != store else output
        click.echo(f"{folder}: {count_of(write(opened, folder), 'video')}")

    for_each_store(store, step)


def _plain_export(form: str) -> "Callable[[FeatureStore, Path], int]":
    from vidpipe.features import export as plain

    return lambda store, folder: plain.export(store, folder, form=form)


def _export_for(program: str, labels: Path | None) -> "Callable[[FeatureStore, Path], int]":
    from vidpipe.datasets.intervals import read_intervals
    from vidpipe.timeline.exports import export_for

    intervals = read_intervals(labels) if labels is not None else []
    if labels is None:
        click.echo("without --labels, the videos have no annotations", err=True)
    return lambda store, folder: export_for(store, folder, program=program, intervals=intervals)


command = click.Group(
    "store",
    commands=[verify, repair, merge, compact, prune, export],
    short_help="Verify, repair, merge, compact, prune and export feature stores.",
    help="Verify, repair, merge, compact, prune and export feature stores.",
)
