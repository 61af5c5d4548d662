"""Inception-ResNet v1 for faces: facenet-pytorch's vectors, from facenet-pytorch's files."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.commands import run
from tests.faces import write_facenet
from vidpipe.backbones.frozen import FrozenNetwork
from vidpipe.backbones.image import load_backbone
from vidpipe.backbones.table import find_backbone
from vidpipe.backbones.weights import find_weights
from vidpipe.errors import WeightsError

SPEC = find_backbone("facenet")
EVERY_64TH = [
    [-0.130872, -0.000254, 0.068251, -0.117372, -0.051726, 0.032072, -0.024208, 0.050859],
    [-0.121216, 0.000798, 0.068745, -0.12778, -0.047832, 0.025441, -0.020078, 0.056391],
]
"""Of the vectors that facenet-pytorch 2.6.0 gives for `pictures` with `weights_by_name`; its own standardisation."""


def pictures() -> NDArray[np.uint8]:
    blocks = np.random.default_rng(0).integers(0, 256, (2, 3, 20, 20), dtype=np.uint8)
    return blocks.repeat(8, axis=2).repeat(8, axis=3)


def loaded(path: Path) -> FrozenNetwork:
    return load_backbone(SPEC, weights=find_weights(SPEC, str(path)), device="cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_facenet(tmp_path_factory.mktemp("weights") / "20180402-114759-vggface2.pt")


def test_the_vectors_are_those_of_facenet_pytorch(weights: Path) -> None:
    vectors = loaded(weights)(torch.from_numpy(pictures()))
    assert vectors.shape == (2, 512)
    assert np.abs(vectors[:, ::64].numpy() - EVERY_64TH).max() < 2e-6
    assert np.allclose(vectors.norm(dim=1), 1)


def test_a_file_without_the_classifier_gives_the_same_vectors(weights: Path, tmp_path: Path) -> None:
    tensors = torch.load(weights, weights_only=True)
    torch.save({name: one for name, one in tensors.items() if not name.startswith("logits.")}, tmp_path / "casia.pt")
    one, other = (loaded(path)(torch.from_numpy(pictures())) for path in (weights, tmp_path / "casia.pt"))
    assert torch.equal(one, other)


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match=r"not weights of facenet: .* missing .* 1 unexpected"):
        loaded(tmp_path / "other.pt")


def test_there_are_no_default_weights() -> None:
    with pytest.raises(WeightsError, match=r"20180402-114759-vggface2[.]pt, with --weights FILE; docs/faces[.]md"):
        find_weights(SPEC, "default")
    assert "facenet" in run("backbones").stdout


@pytest.mark.slow
def test_the_network_is_facenet_pytorchs_own_with_any_weights(facenet_pytorch: ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(1)
    own = facenet_pytorch.InceptionResnetV1(classify=True, num_classes=7)
    own.train()(torch.randn(4, 3, 160, 160))  # batch normalisation has statistics of its own
    own.eval().classify = False
    torch.save(own.state_dict(), tmp_path / "own.pt")
    frames = torch.from_numpy(pictures())
    with torch.no_grad():
        expected = own(facenet_pytorch.fixed_image_standardization(frames.float()))
    assert (loaded(tmp_path / "own.pt")(frames) - expected).abs().max() < 1e-5
