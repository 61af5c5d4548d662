"""MTCNN's weights: three files in a folder, or in facenet-pytorch's wheel."""

import zipfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path, PurePosixPath

from vidpipe.backbones.weights import WeightsFile
from vidpipe.errors import UsageError, WeightsError

__all__ = ["MTCNN_FILES", "find_mtcnn_weights", "read_mtcnn_files"]

MTCNN_FILES = ("pnet.pt", "rnet.pt", "onet.pt")
_MAX_BYTES = 2**24
"""Of one file; the largest has 1.6 million."""
_WANTED = (
    "give a folder with facenet-pytorch's pnet.pt, rnet.pt and onet.pt, or its wheel (pip download --no-deps "
    "facenet-pytorch), with --detector-weights"
)


def find_mtcnn_weights(weights: str) -> WeightsFile:
    """Find MTCNN's weights.

    Args:
        weights: the path of a folder or of a wheel; `default`, which there is not.

    Returns:
        The place, with the sha256 of the three files, which is the same for a folder and a wheel.

    Raises:
        UsageError: there is no such place.
        WeightsError: it lacks a file, or cannot be read.
    """
    if weights == "default":
        raise UsageError(f"mtcnn has no default weights: {_WANTED}")
    path = Path(weights)
    if not path.exists():
        raise UsageError(f"--detector-weights {weights}: no such file or folder; {_WANTED}")
    content = b"".join(read_mtcnn_files(path).values())
    return WeightsFile(sha256(content).hexdigest(), path, f"file {path}")


def read_mtcnn_files(path: Path) -> Mapping[str, bytes]:
    """Read the three files.

    Args:
        path: a folder, or a zip file that has them at any depth, as a wheel does.

    Returns:
        Their contents, by name, in the order of the cascade.

    Raises:
        WeightsError: a file is not there, or cannot be read.
    """
    try:
        if path.is_dir():
            return {name: _checked(path / name, (path / name).read_bytes()) for name in MTCNN_FILES}
        with zipfile.ZipFile(path) as archive:
            members = {PurePosixPath(name).name: name for name in archive.namelist()}
            return {name: _checked(path / name, _read(archive, members[name])) for name in MTCNN_FILES}
    except KeyError as error:
        raise WeightsError(f"{path}: there is no {error.args[0]} in this file; {_WANTED}") from error
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: there is no {Path(error.filename).name} in this folder; {_WANTED}") from error
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError) as error:
        raise WeightsError(f"{path}: cannot be read as a wheel of weights ({error}); {_WANTED}") from error


def _read(archive: zipfile.ZipFile, member: str) -> bytes:
    with archive.open(member) as file:
        return file.read(_MAX_BYTES + 1)


def _checked(path: Path, content: bytes) -> bytes:
    if len(content) > _MAX_BYTES:
        raise WeightsError(f"{path}: too large for a network of mtcnn; {_WANTED}")
    return content
