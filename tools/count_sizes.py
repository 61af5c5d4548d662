"""Counts the parameters and multiplications of every backbone, and writes the table that vidpipe ships.

python -m tools.count_sizes
"""

import csv
from argparse import ArgumentParser, RawDescriptionHelpFormatter

from vidpipe.backbones.sizes import SIZES, count_backbone
from vidpipe.backbones.table import BACKBONES


def main() -> None:
    """Count the sizes of all backbones."""
    with SIZES.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("name", "parameters", "gmacs"))
        for spec in (one for one in BACKBONES.values() if one.has_weights):
            size = count_backbone(spec)
            writer.writerow((spec.name, size.num_parameters, f"{size.gmacs:.4f}"))


if __name__ == "__main__":
    ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter).parse_args()
    main()
