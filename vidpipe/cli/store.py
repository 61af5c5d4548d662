"""vidpipe store"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vidpipe.cli.options import (
    SOME_VIDEOS_FAILED,
    find_inputs,
    format_option,
    inputs_argument,
    json_line,
    prefix_option,
    printable,
    vidpipe_command,
)
from vidpipe.errors import count_of

if TYPE_CHECKING:
    from vidpipe.features.maintenance import StoreSize

store_argument = click.argument("store", type=click.Path(path_type=Path))
output_option = click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="A new folder, or an empty one."
)


@vidpipe_command(name="verify", short_help="Read all of a store, and name what is damaged.")
@store_argument
@format_option("table", "json")
def verify(store: Path, format_: str) -> None:
    """Read all of a store, and name what is not as it was written.

    Exit code 3: something is damaged.

    \b
    vidpipe store verify features
    """
    from vidpipe.features import maintenance
    from vidpipe.features.store import FeatureStore

    opened = FeatureStore.open(store)
    damage = maintenance.find_damage(opened)
    if format_ == "json":
        rows = [{"shard": str(one.shard), "video": one.video_id, "reason": one.reason} for one in damage]
        click.echo(json_line({"path": str(store), "damage": rows}))
    elif damage:
        click.echo("\n".join(printable(str(one)) for one in damage))
        click.echo(f"{len(damage)} damaged; `vidpipe store repair {store}` drops them", err=True)
    else:
        where = f"{count_of(len(opened), 'video')} in {count_of(len(opened.shards), 'shard')}"
        click.echo(f"{store}: {where}, all as they were written")
    if damage:
        click.get_current_context().exit(SOME_VIDEOS_FAILED)


@vidpipe_command(name="repair", short_help="Drop what is damaged, so that extract makes it again.")
@store_argument
def repair(store: Path) -> None:
    """Drop what is damaged, so that the next extract makes it again.

    Bad videos leave their shard; a shard that cannot be read is moved to STORE/quarantine. Leftovers of crashed writers
    go. Refused while something else writes to the store.

    \b
    vidpipe store repair features
    """
    from vidpipe.features import maintenance
    from vidpipe.features.store import FeatureStore

    dropped = maintenance.repair(FeatureStore.open(store))
    for one in dropped:
        click.echo(f"dropped: {printable(str(one))}")
    then = f"{len(dropped)} dropped; the next extract makes them again" if dropped else "nothing is damaged"
    click.echo(f"{store}: {then}")


@vidpipe_command(name="merge", short_help="Several stores -> one.")
@click.argument("stores", metavar="STORE…", nargs=-1, required=True, type=click.Path(path_type=Path))
@output_option
def merge(stores: tuple[Path, ...], output: Path) -> None:
    """Copy stores that were made with the same settings into one.

    \b
    vidpipe store merge features_a features_b -o features
    """
    from vidpipe.features import maintenance
    from vidpipe.features.store import FeatureStore

    num_videos = maintenance.merge([FeatureStore.open(store) for store in stores], output)
    click.echo(f"{output}: {count_of(num_videos, 'video')} of {count_of(len(stores), 'store')}")


@vidpipe_command(name="compact", short_help="Free the room of replaced features; join small shards.")
@store_argument
def compact(store: Path) -> None:
    """Free the room of features that newer ones replaced, and join small shards.

    Refused while something else writes to the store.

    \b
    vidpipe store compact features
    """
    from vidpipe.features import maintenance
    from vidpipe.features.store import FeatureStore

    before, after = maintenance.compact(FeatureStore.open(store))
    click.echo(f"{store}: {_told(before)} -> {_told(after)}")


def _told(size: "StoreSize") -> str:
    shards, sequences = count_of(size.num_shards, "shard"), count_of(size.num_sequences, "sequence")
    return f"{shards}, {sequences}, {size.size_bytes / 1e6:.1f} MB"


@vidpipe_command(name="prune", short_help="Drop the videos whose files are gone.")
@store_argument
@inputs_argument
@prefix_option
@click.option("--yes", is_flag=True, help="Drop them; without it they are only listed.")
def prune(store: Path, inputs: tuple[Path, ...], prefix: str, yes: bool) -> None:
    """Drop the stored videos of INPUT whose files are gone, and what is known of failed files that are gone.

    Give the INPUT and --prefix that were given to extract. Videos of other folders or prefixes stay. Without --yes it
    only lists what it would drop. Refused while something else writes to the store.

    
    vidpipe store prune features videos/
    vidpipe store prune features videos/ --yes
    """
    from vidpipe.features import inventory
    from vidpipe.features.store import FeatureStore

    opened = FeatureStore.open(store)
    videos, unreadable = find_inputs(inputs, prefix=prefix)
    gone, failures = inventory.prune(opened, videos, dry_run=not yes)
    verb = "dropped" if yes else "gone"
    for video_id in gone:
        click.echo(f"{verb}: {printable(video_id)}")
    for video_id in failures:
        click.echo(f"{verb}: {printable(video_id)} (failed)")
    for told in unreadable:
        click.echo(told, err=True)
    found = count_of(len(gone), "video") + (f" and {count_of(len(failures), 'failure')}" if failures else "")
    if not gone and not failures:
        click.echo(f"{store}: nothing to drop; the files of all stored videos of these folders are there")
    elif yes:
        click.echo(f"{store}: {found} dropped; {count_of(len(opened), 'video')} left")
    else:
        click.echo(f"{store}: {found} to drop; --yes drops what is listed")


@vidpipe_command(name="export", short_help="Features as plain files, for other programs.")
@store_argument
@output_option
@format_option("npy", "h5")
def export(store: Path, output: Path, format_: str) -> None:
    """Write features as plain files, for training code of your own.

    \b
    npy  a file (T, D) for each video, under the video's own path, and index.csv, a table of them
    h5   one features.h5 with features/<id> (T, D) and pts_seconds/<id> (T,)

    \b
    vidpipe store export features -o exported
    vidpipe store export features -o exported --format h5
    """
    from vidpipe.features import export as plain
    from vidpipe.features.store import FeatureStore

    num_videos = plain.export(FeatureStore.open(store), output, form=format_)
    click.echo(f"{output}: {count_of(num_videos, 'video')}")


command = click.Group(
    "store",
    commands=[verify, repair, merge, compact, prune, export],
    short_help="Check, mend, join, tidy, prune and export feature stores.",
    help="Check, mend, join, tidy, prune and export feature stores.",
)
