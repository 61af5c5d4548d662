"""Tables on stdout."""

from collections.abc import Iterable, Sequence

__all__ = ["show_table"]

_WIDTH_WITHOUT_TERMINAL = 200


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table with a header; cells are wrapped on a narrow terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console = Console(markup=False, emoji=False)
    console.width = console.width if console.is_terminal else max(console.width, _WIDTH_WITHOUT_TERMINAL)
    console.print(table)
