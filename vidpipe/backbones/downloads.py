"""Downloads of weights into the caches of torch hub and huggingface_hub: whole or not at all, one process at a time."""

import hashlib
import logging
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

__all__ = [
    "HUB",
    "download_file",
    "download_from_hub",
    "fetch_from_hub",
    "find_in_hub_cache",
    "hub_cache",
    "sha256",
    "sha256_prefix",
]

logger = logging.getLogger(__name__)

HUB = "https://huggingface.co/"
"""The start of the URL of a file in a repository of the hub: `HUB/OWNER/NAME/resolve/main/FILE`."""


HUB_FILES = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin")
"""The names of weights in timm's repositories, tried where the file of a URL does not exist."""


def sha256(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_prefix(address: str) -> str | None:
    """Return the start of the sha256 in the names of torchvision's and timm's files: `resnet50-11ad3fa6.pth`."""
    found = re.search(r"-([0-9a-f]{8,64})\.\w+$", address)
    return found[1] if found else None


def download_file(address: str, path: Path) -> None:
    """Download a file beside its place, check it and move it there; of several processes, the first one does this.

    Args:
        address: the file's URL.
        path: where to put it.

    Raises:
        OSError: the file cannot be downloaded or written.
        RuntimeError: its sha256 differs from the one in its name.
    """
    from torch.hub import download_url_to_file

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f"{path.name}.lock")
    with FileLock(lock):
        try:
            if not path.exists():
                logger.info("downloading %s", address)
                download_url_to_file(
                    address, str(path), hash_prefix=sha256_prefix(address), progress=sys.stderr.isatty()
                )
        finally:
            with suppress(OSError):  # a process that waits for it then finds the file
                lock.unlink()


def hub_cache() -> Path:
    """Return the folder of huggingface_hub's downloads."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def find_in_hub_cache(address: str) -> Path | None:
    """Return the path of a file of the hub on this machine; None where it was not downloaded."""
    from huggingface_hub import try_to_load_from_cache

    repository, files = _parts(address)
    found = (try_to_load_from_cache(repository, file, cache_dir=hub_cache()) for file in files)
    return next((Path(path) for path in found if isinstance(path, str)), None)


def download_from_hub(address: str) -> Path:
    """Download a file with huggingface_hub, which locks, resumes and moves it into place; check its sha256.

    Args:
        address: the file's URL.

    Returns:
        The path in the hub's cache.

    Raises:
        Exception: one of huggingface_hub's, where the file cannot be downloaded.
        RuntimeError: its sha256 differs from the hub's.
    """
    _quiet_hub()
    repository, files = _parts(address)
    logger.info("downloading %s", address)
    path = _first_there(repository, files)
    named = path.resolve().name  # the cache names a large file after its sha256
    if re.fullmatch(r"[0-9a-f]{64}", named) and sha256(path) != named:
        path.resolve().unlink()
        raise RuntimeError(f"the file does not have the sha256 {named[:12]}… that the hub gives")
    return path


def fetch_from_hub(repository: str, files: Sequence[str]) -> Path | None:
    """Find a small file of a repository of the hub in the hub's cache, or download it.

    Args:
        repository: `OWNER/NAME`
        files: names for the file, the most likely one first.

    Returns:
        The path in the hub's cache; None where the repository has no file of these names.

    Raises:
        Exception: one of huggingface_hub's, where the file is not in the cache and cannot be downloaded.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import RemoteEntryNotFoundError

    _quiet_hub()
    cached = {file: try_to_load_from_cache(repository, file, cache_dir=hub_cache()) for file in files}
    for found in cached.values():
        if isinstance(found, str):
            return Path(found)
    for file in (file for file, found in cached.items() if found is None):  # otherwise it is known to be missing
        with suppress(RemoteEntryNotFoundError):
            return Path(hf_hub_download(repository, file, cache_dir=hub_cache()))
    return None


def _quiet_hub() -> None:
    """Let huggingface_hub report only errors, and show progress only on a terminal."""
    from huggingface_hub import logging as hub_logging
    from huggingface_hub.utils.tqdm import disable_progress_bars

    hub_logging.set_verbosity_error()  # type: ignore[no-untyped-call] # it would report every try
    if not sys.stderr.isatty():
        disable_progress_bars()


def _first_there(repository: str, files: Sequence[str]) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError

    for file in files[:-1]:
        with suppress(RemoteEntryNotFoundError):
            return Path(hf_hub_download(repository, file, cache_dir=hub_cache()))
    return Path(hf_hub_download(repository, files[-1], cache_dir=hub_cache()))


def _parts(address: str) -> tuple[str, list[str]]:
    """The repository of a URL and the files to look for: `("timm/vit_small_…", ["model.safetensors", …])`"""
    repository, _, file = address.removeprefix(HUB).partition("/resolve/main/")
    return repository, list(dict.fromkeys((file, *HUB_FILES)))
