"""Tables on stdout."""

from collections.abc import Iterable, Sequence

__all__ = ["show_table"]

WIDTH_OFF_TERMINAL = 200


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows below the names of their columns; cells wrap where a terminal is narrow."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console = Console(markup=False, emoji=False)
    console.width = console.width if console.is_terminal else max(console.width, WIDTH_OFF_TERMINAL)
    console.print(table)
