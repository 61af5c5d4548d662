"""Weights from the network, into torch hub's cache or huggingface_hub's: whole or not at all, one process at a time."""

import hashlib
import logging
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

__all__ = ["HUB", "download_file", "download_from_hub", "find_in_hub_cache", "hub_cache", "sha256"]

logger = logging.getLogger(__name__)

HUB = "https://huggingface.co/"
"""An address that begins so is a file of a repository of the hub: `HUB/OWNER/NAME/resolve/main/FILE`."""


HUB_FILES = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin")
"""What timm's repositories call their weights; where the file of an address is not there, these are tried."""


def sha256(path: Path) -> str:
    """Of a file's bytes, as text."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_prefix(address: str) -> str | None:
    """The start of a file's sha256, which torchvision's and timm's names carry: `resnet50-11ad3fa6.pth`."""
    found = re.search(r"-([0-9a-f]{8,64})\.\w+$", address)
    return found[1] if found else None


def download_file(address: str, path: Path) -> None:
    """Fetch a file beside its place, check it and move it there; the one of several processes that comes first does.

    Raises:
        OSError: the file cannot be fetched or written.
        RuntimeError: what came has another sha256 than its name says.
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
            with suppress(OSError):  # who waits for it goes on and looks whether the file has come
                lock.unlink()


def hub_cache() -> Path:
    """Where huggingface_hub keeps what it downloads."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def find_in_hub_cache(address: str) -> Path | None:
    """Where a file of the hub lies on this machine; None where it does not."""
    from huggingface_hub import try_to_load_from_cache

    repository, files = _parts(address)
    found = (try_to_load_from_cache(repository, file, cache_dir=hub_cache()) for file in files)
    return next((Path(path) for path in found if isinstance(path, str)), None)


def download_from_hub(address: str) -> Path:
    """Fetch a file through huggingface_hub, which locks, resumes and moves it into place; check its sha256.

    Raises:
        Exception: of huggingface_hub's many, where the file cannot be fetched.
        RuntimeError: what came has another sha256 than the hub says.
    """
    from huggingface_hub import logging as hub_logging
    from huggingface_hub.utils.tqdm import disable_progress_bars

    hub_logging.set_verbosity_error()  # type: ignore[no-untyped-call] # else it tells of every try; what comes of them is told once
    if not sys.stderr.isatty():
        disable_progress_bars()
    repository, files = _parts(address)
    logger.info("downloading %s", address)
    path = _first_there(repository, files)
    named = path.resolve().name  # the cache names a large file after its sha256
    if re.fullmatch(r"[0-9a-f]{64}", named) and sha256(path) != named:
        path.resolve().unlink()
        raise RuntimeError(f"what came has not the sha256 {named[:12]}… that the hub says")
    return path


def _first_there(repository: str, files: Sequence[str]) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError

    for file in files[:-1]:
        with suppress(RemoteEntryNotFoundError):
            return Path(hf_hub_download(repository, file, cache_dir=hub_cache()))
    return Path(hf_hub_download(repository, files[-1], cache_dir=hub_cache()))


def _parts(address: str) -> tuple[str, list[str]]:
    """The repository of an address and the files to look for: `("timm/vit_small_…", ["model.safetensors", …])`"""
    repository, _, file = address.removeprefix(HUB).partition("/resolve/main/")
    return repository, list(dict.fromkeys((file, *HUB_FILES)))
