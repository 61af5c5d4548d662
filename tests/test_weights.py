import pickle
import re
import socket
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
import torchvision

from vidpipe.backbones.image import load_backbone
from vidpipe.backbones.table import BACKBONES, find_backbone
from vidpipe.backbones.weights import default_weights_path, find_weights, load_tensors
from vidpipe.errors import UsageError, WeightsError

LITE0 = BACKBONES["efficientnet_lite0"]


class _Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def renamed_lite0(tmp_path: Path, suffix: str) -> Path:
    """The real weights, under the names that timm gives them."""
    state = load_backbone(LITE0, device="cpu").features.state_dict()
    tensors = {name.removeprefix("model."): tensor for name, tensor in state.items()}
    path = tmp_path / f"lite0{suffix}"
    if suffix == ".safetensors":
        safetensors.torch.save_file(tensors, path)
    else:
        torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in tensors.items()}}, path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
def test_a_file_of_weights_gives_the_same_features(tmp_path: Path, suffix: str) -> None:
    weights = find_weights(LITE0, str(renamed_lite0(tmp_path, suffix)))
    frames = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    ours, theirs = (load_backbone(LITE0, weights=w, device="cpu")(frames) for w in (weights, None))
    assert torch.equal(ours, theirs)


def test_weights_are_known_by_their_contents(tmp_path: Path) -> None:
    one, other = tmp_path / "a.pth", tmp_path / "b.pth"
    torch.save({"x": torch.zeros(1)}, one)
    other.write_bytes(one.read_bytes())
    assert find_weights(LITE0, str(one)).id == find_weights(LITE0, str(other)).id != find_weights(LITE0, "default").id


def test_a_pickle_is_never_run(tmp_path: Path) -> None:
    path, touched = tmp_path / "bad.pth", tmp_path / "touched"
    for save in (
        lambda: torch.save({"x": _Malicious(touched)}, path),
        lambda: path.write_bytes(pickle.dumps(_Malicious(touched))),
    ):
        save()
        with pytest.raises(WeightsError, match=r"bad\.pth"):
            load_tensors(path)
    assert not touched.exists()


@pytest.mark.parametrize("name", ["bad.pth", "bad.pt", "bad.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights at all", b"PK\x03\x04 half a zip"])
def test_a_damaged_file_is_reported(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=name):
        load_tensors(tmp_path / name)


def test_weights_of_another_model_are_reported_by_their_keys(tmp_path: Path) -> None:
    weights = find_weights(BACKBONES["resnet50"], str(renamed_lite0(tmp_path, ".pth")))
    with pytest.raises(
        WeightsError, match=r"not weights of resnet50: \d+ missing \(conv1\.weight.*unexpected \(blocks"
    ):
        load_backbone(BACKBONES["resnet50"], weights=weights, device="cpu")


def test_checkpoints_with_torchvisions_older_names_are_taken(tmp_path: Path) -> None:
    torch.manual_seed(1)
    tensors = torchvision.models.densenet121().state_dict()
    older = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", name): value for name, value in tensors.items()}
    assert older.keys() != tensors.keys()
    frames = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8)
    features = []
    for number, named in enumerate((tensors, older)):
        torch.save(named, tmp_path / f"{number}.pth")
        weights = find_weights(BACKBONES["densenet121"], str(tmp_path / f"{number}.pth"))
        features.append(load_backbone(BACKBONES["densenet121"], weights=weights, device="cpu")(frames))
    assert torch.equal(*features)


CLIP_NAMES = {
    "patch_embed.proj.": "conv1.",
    "pos_embed": "positional_embedding",
    "cls_token": "class_embedding",
    "blocks.": "transformer.resblocks.",
    ".norm1.": ".ln_1.",
    ".norm2.": ".ln_2.",
    "norm.": "ln_post.",
    "attn.qkv.": "attn.in_proj_",
    "attn.proj.": "attn.out_proj.",
    "mlp.fc1.": "mlp.c_fc.",
    "mlp.fc2.": "mlp.c_proj.",
}


def test_the_image_tower_of_a_whole_clip_is_taken(tmp_path: Path) -> None:
    spec = find_backbone("timm/test_vit.r160_in1k")
    torch.manual_seed(1)
    towers = {"logit_scale": torch.tensor(1.0), "transformer.resblocks.0.ln_1.weight": torch.ones(512)}
    for name, tensor in timm.create_model(spec.builder, num_classes=0).state_dict().items():
        own = tensor[0] if name == "pos_embed" else tensor[0, 0] if name == "cls_token" else tensor
        for timms, clips in CLIP_NAMES.items():
            name = name.replace(timms, clips) if timms != "norm." or name.startswith("norm.") else name
        towers[f"visual.{name}"] = own.clone()
    safetensors.torch.save_file(towers, tmp_path / "open_clip_model.safetensors")
    torch.manual_seed(1)
    torch.save(timm.create_model(spec.builder, num_classes=0).state_dict(), tmp_path / "timm.pth")
    frames = torch.randint(0, 256, (2, 3, 160, 160), dtype=torch.uint8)
    files = (str(tmp_path / "open_clip_model.safetensors"), str(tmp_path / "timm.pth"))
    ours, theirs = (load_backbone(spec, weights=find_weights(spec, file), device="cpu")(frames) for file in files)
    assert torch.equal(ours, theirs)


def test_weights_of_another_transformer_are_reported_by_their_shapes(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "other.pth")
    weights = find_weights(BACKBONES["vit_tiny"], str(tmp_path / "other.pth"))
    with pytest.raises(WeightsError, match=r"not weights of vit_tiny: \d+ missing \(blocks\..*of another shape \("):
        load_backbone(BACKBONES["vit_tiny"], weights=weights, device="cpu")


def test_a_missing_file_is_reported() -> None:
    with pytest.raises(UsageError, match="no such weights file"):
        find_weights(LITE0, "nowhere.pth")


def test_without_a_network_the_error_says_what_to_fetch_and_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*args: object, **kwargs: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    with pytest.raises(WeightsError) as raised:
        find_weights(BACKBONES["resnet50"], "default")
    for message in (
        BACKBONES["resnet50"].weights,
        str(tmp_path / "hub/checkpoints"),
        "--weights FILE",
        "efficientnet_lite0",
    ):
        assert message in str(raised.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_downloaded_weights_are_looked_for_where_torch_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert (
        default_weights_path(BACKBONES["resnet50"]) == Path(torch.hub.get_dir()) / "checkpoints/resnet50-11ad3fa6.pth"
    )
