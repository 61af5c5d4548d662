"""A learned embedding: a vector of length 1 for each video, near those of videos with the same label.

EMB/
  embedding.safetensors   the projection, and the scales and components that it is applied to
  embedding.json          {"format", "version", "streams": [{"name", "key", "dim", "input"}], "dim", …}
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from vidpipe.datasets.sequences import SequenceDataset
from vidpipe.datasets.streams import Stores, match_stores, name_stores
from vidpipe.errors import KeyMismatchError, RunError, UsageError
from vidpipe.features.key import FeatureKey
from vidpipe.features.store import FeatureStore
from vidpipe.heads.fusion import Padded
from vidpipe.heads.inputs import HeadInput
from vidpipe.runs.run_folder import replace_folder, sync_tree
from vidpipe.search.statistics import StreamStatistics, VideoStatistics, compute_vectors
from vidpipe.version import __version__

__all__ = ["Embedding", "EmbeddingNetwork", "check_embedding_folder", "save_embedding"]

FORMAT, VERSION = "vidpipe-embedding", 1
_TENSORS, _ABOUT = "embedding.safetensors", "embedding.json"


class EmbeddingNetwork(nn.Module):
    """Statistics over time of each stream, their principal components, a linear layer, and the unit sphere.

    Args:
        statistics: of the videos, fitted; D components.
    """

    def __init__(self, statistics: VideoStatistics) -> None:
        super().__init__()
        self.statistics = statistics
        self.projection = nn.Linear(statistics.num_components, statistics.num_components)
        with torch.no_grad():  # training starts from the similarity of the statistics
            self.projection.weight.copy_(torch.eye(statistics.num_components))
            self.projection.bias.zero_()

    def forward(self, sequences: Mapping[str, Padded]) -> Tensor:
        """Embed padded sequences by stream: (N, D), each of length 1"""
        return self.project(self.statistics(sequences))

    def project(self, components: Tensor) -> Tensor:
        """Embed the output of `statistics`: (N, D) -> (N, D), each of length 1"""
        return normalize(self.projection(components), dim=1)


@dataclass(frozen=True)
class Embedding:
    """A trained embedding.

    vectors = Embedding.open("EMB").embed(stores, ids)
    """

    network: EmbeddingNetwork
    keys: Mapping[str, FeatureKey]
    """By stream, the key of the features that it sees."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """`class_names`, `num_videos`, `config` and `metrics`."""
    path: Path | None = None
    """The folder that it was opened from."""

    @classmethod
    def open(cls, path: Path | str) -> "Embedding":
        """Open an embedding's folder.

        Args:
            path: the folder.

        Returns:
            The embedding.

        Raises:
            UsageError: there is no such folder.
            RunError: the folder is no embedding, or is damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = Path(path)
        about = _read_about(path)
        try:
            described = about.pop("streams")
            keys = {one["name"]: FeatureKey.from_dict(one["key"]) for one in described}
            parts = {one["name"]: StreamStatistics(int(one["dim"]), HeadInput(**one["input"])) for one in described}
            network = EmbeddingNetwork(VideoStatistics(parts, int(about["dim"])))
            network.load_state_dict(load_file(path / _TENSORS))
        except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            raise RunError(f"{path}: the embedding cannot be loaded ({error}); train it again") from error
        return cls(network.eval(), keys, about, path)

    def match(self, paths: Sequence[Path], *, usage: str) -> dict[str, FeatureStore]:
        """Open the stores of its streams, whatever the names of their folders.

        Args:
            paths: stores, and folders of stores.
            usage: the command to type, with `STORE` for the store.

        Returns:
            The stores by stream.

        Raises:
            UsageError: a path does not exist, or several stores fit.
            KeyMismatchError: a stream has no store, or one with another key.
            StoreError: a store cannot be opened.
        """
        stores = match_stores(self.keys, paths, usage=usage)
        self.check(stores)
        return stores

    def check(self, stores: Stores) -> None:
        """Check that stores hold the features that it was trained on.

        Args:
            stores: by stream.

        Raises:
            KeyMismatchError: a stream is missing, or has another key.
        """
        named = name_stores(stores)
        for name, key in self.keys.items():
            if name not in named:
                raise KeyMismatchError(f"{self.path}: the stream {name} is missing; give its store, too")
            if named[name].key != key:
                theirs, ours = named[name].key.contrast(key)
                raise KeyMismatchError(
                    f"{named[name].path}: holds {theirs}, and the embedding {self.path} was trained on {ours}; extract "
                    "the videos with these settings, or train an embedding on this store"
                )

    def embed(self, dataset: SequenceDataset) -> Tensor:
        """Embed the videos of a dataset that has its streams: (N, D), each of length 1."""
        return compute_vectors(self.network, dataset)


def check_embedding_folder(path: Path, *, overwrite: bool) -> None:
    """Check that an embedding can be written to a folder.

    Args:
        path: the folder.
        overwrite: replace an embedding that is there.

    Raises:
        UsageError: the path holds something else.
        RunError: there is an embedding, and `overwrite` is off.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not (path / _ABOUT).is_file() or {one.name for one in path.iterdir()} - {_ABOUT, _TENSORS}:
        raise UsageError(f"{path}: holds other files than an embedding; give another folder with -o")
    if not overwrite:
        raise RunError(f"{path}: there is an embedding already; give another folder with -o, or give --overwrite")


def save_embedding(embedding: Embedding, path: Path) -> None:
    """Write an embedding into a folder aside, and rename it.

    Args:
        embedding: to write.
        path: its folder; an embedding that is there is replaced.

    Raises:
        RunError: it cannot be written.
    """
    import shutil

    from safetensors.torch import save_file

    aside = path.resolve().with_name(f".{path.resolve().name}.writing")
    streams = [
        {"name": name, "key": embedding.keys[name].as_dict(), "dim": part.dim, "input": asdict(part.seen)}
        for name, part in embedding.network.statistics.streams.items()
    ]
    about = {"format": FORMAT, "version": VERSION, "vidpipe_version": __version__, "streams": streams}
    try:
        shutil.rmtree(aside, ignore_errors=True)
        (aside / "new").mkdir(parents=True)
        tensors = {name: tensor.contiguous() for name, tensor in embedding.network.state_dict().items()}
        save_file(tensors, aside / "new" / _TENSORS)
        text = json.dumps({**about, **embedding.about}, indent=1, ensure_ascii=False)
        (aside / "new" / _ABOUT).write_text(f"{text}\n", encoding="utf-8")
        sync_tree(aside / "new")
        replace_folder(path.resolve(), aside / "new")
    except OSError as error:
        raise RunError(f"{path}: the embedding cannot be written ({error}); give another folder with -o") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _read_about(path: Path) -> dict[str, Any]:
    remedy = f"`vidpipe search train STORE --labels FILE -o {path}` makes one"
    try:
        about = json.loads((path / _ABOUT).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        if not path.exists():
            raise UsageError(f"{path}: no such folder; {remedy}") from None
        raise RunError(f"{path}: no embedding: it has no {_ABOUT}; {remedy}") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: {_ABOUT} cannot be read ({error}); train it again") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise RunError(f"{path}: {_ABOUT} is not that of an embedding; {remedy}")
    if about.get("version") != VERSION:
        raise RunError(f"{path}: embedding version {about.get('version')}; this vidpipe reads version {VERSION}")
    return {name: value for name, value in about.items() if name not in ("format", "version", "vidpipe_version")}
