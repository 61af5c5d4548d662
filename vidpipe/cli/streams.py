"""Commands over every store in a folder of stores."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vidpipe.cli.options import SOME_VIDEOS_FAILED, printable
from vidpipe.errors import StoreError

if TYPE_CHECKING:
    from vidpipe.features.store import FeatureStore

__all__ = ["for_each_store"]


def for_each_store(path: Path, step: "Callable[[FeatureStore], bool | None]") -> None:
    """Run a step of a command on a store, or on each store in a folder of stores.

    In a folder, a store that cannot be opened or fails is reported on stderr and the others go on. The command then
    exits with code 3.

    Args:
        path: a store, or a folder of stores.
        step: called with each store; returns False where the command must exit with code 3.

    Raises:
        UsageError: there is no such folder.
        StoreError: the folder is no store and holds none that can be opened, or the one store failed.
    """
    from vidpipe.features.streams import find_stores

    found = find_stores(path)
    is_ok, failures = True, list(found.errors.values())
    for store in found.stores:
        try:
            is_ok &= step(store) is not False
        except StoreError as error:
            if not found.is_folder:
                raise
            failures.append(error)
    for failure in failures:
        click.echo(printable(f"failed: {failure}"), err=True)
    if failures or not is_ok:
        click.get_current_context().exit(SOME_VIDEOS_FAILED)
