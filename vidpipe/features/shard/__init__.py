"""The shards of a feature store: HDF5 files with the sequences of some videos each. `layout` has their format."""

from vidpipe.features.shard.checks import find_fault
from vidpipe.features.shard.layout import (
    COLUMNS,
    DTYPES,
    INFO_COLUMNS,
    OPTIONAL_COLUMNS,
    SOURCE_COLUMNS,
    VideoRow,
    row_arrays,
)
from vidpipe.features.shard.opening import REMEDY
from vidpipe.features.shard.plain import write_plain
from vidpipe.features.shard.reading import Shard
from vidpipe.features.shard.writing import write_shard

__all__ = [
    "COLUMNS",
    "DTYPES",
    "INFO_COLUMNS",
    "OPTIONAL_COLUMNS",
    "REMEDY",
    "SOURCE_COLUMNS",
    "Shard",
    "VideoRow",
    "find_fault",
    "row_arrays",
    "write_plain",
    "write_shard",
]
