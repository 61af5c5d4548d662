"""vidpipe backbones"""

import json
from typing import Any

import click

from vidpipe.cli.options import format_option, vidpipe_command


@vidpipe_command(name="backbones", short_help="The image models by name.")
@format_option("table", "json")
def command(format_: str) -> None:
    """List the frozen image models: name, D, input size, where their weights come from, and whether they are here.

    \b
    vidpipe backbones
    """
    rows = _rows()
    if format_ == "json":
        for row in rows:
            click.echo(json.dumps(row))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "D", "input", "here", "weights", "licence", box=None, pad_edge=False)
    for row in rows:
        here = "yes" if row["here"] else "no"
        side = f"{row['input_size']}×{row['input_size']}"
        table.add_row(row["name"], str(row["dim"]), side, here, row["weights"], row["licence"])
    console = Console()
    console.width = max(console.width, 180) if not console.is_terminal else console.width
    console.print(table)


def _rows() -> list[dict[str, Any]]:
    from vidpipe.models.backbones import BACKBONES
    from vidpipe.models.weights import default_weights_path

    rows = []
    for spec in BACKBONES.values():
        path = default_weights_path(spec)
        here = path is not None and path.exists()
        rows.append(
            {
                "name": spec.name,
                "dim": spec.dim,
                "input_size": spec.input_size,
                "here": here,
                "weights": spec.weights,
                "licence": spec.weights_licence,
                "path": str(path) if here else None,
            }
        )
    return rows
