"""Cells of a picture: pooled exactly, stored as regions of a row, and seen by the head `attention`."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.commands import LITE0, run
from tests.media import write_frames
from tests.stores import KEY, assert_same, make_sequence
from vidpipe.backbones.batching import BatchedModel, Utilisation
from vidpipe.backbones.engines.engine import Finish
from vidpipe.backbones.engines.load import load_engine
from vidpipe.backbones.image import FrozenBackbone, TokenBackbone, load_backbone
from vidpipe.backbones.spec import BackboneSpec
from vidpipe.backbones.stream import resolve_streams
from vidpipe.backbones.table import BACKBONES, find_backbone
from vidpipe.backbones.weights import find_weights
from vidpipe.config import ExtractConfig, TrainConfig
from vidpipe.datasets.sequences import SequenceDataset, pad
from vidpipe.errors import StoreError, UsageError
from vidpipe.features.maintenance import find_damage, merge
from vidpipe.features.store import FeatureStore
from vidpipe.heads.heads import HEADS, SEE_CELLS, Head, build_head
from vidpipe.heads.motion import TRANSFORMS, Motion
from vidpipe.records import (
    FeatureSequence,
    FrameBatch,
    FramePlan,
    LabeledVideo,
    Preprocessing,
    Rows,
    VideoFile,
    VideoInfo,
    VideoPlan,
)
from vidpipe.runs.run import Run
from vidpipe.stages.extract import extract
from vidpipe.stages.predict import predict
from vidpipe.training.fit import compute_logits, fit_head
from vidpipe.video.crop import MAX_ASPECT_RATIO, cell_regions
from vidpipe.video.files import find_videos
from vidpipe.video.resize import resize_and_crop

RESNET = BACKBONES["resnet18"]
FRAMES = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
INFO = VideoInfo(21, 0.84, 25.0, 128, 96, "h264", "pyav", False, 0, 7, 8)
CELLS = ("--num-frames", 4, "--grid", 2)


def drawn_out(maps: Tensor, grid: int) -> Tensor:
    """(N, D, h, w) -> (N, G², D, h · w): the positions of each cell, after each position is repeated G × G times."""
    num, dim, height, width = maps.shape
    large = maps.repeat_interleave(grid, 2).repeat_interleave(grid, 3)  # (N, D, G · h, G · w)
    blocks = large.reshape(num, dim, grid, height, grid, width).permute(0, 2, 4, 1, 3, 5)
    return blocks.reshape(num, grid**2, dim, height * width)


def backbone_of(spec: BackboneSpec, *, pool: str = "auto", grid: int = 1) -> FrozenBackbone:
    backbone = load_backbone(spec, weights=find_weights(spec, "random"), pool=pool, device="cpu", grid=grid)
    assert isinstance(backbone, FrozenBackbone)
    return backbone


# Pooling


@pytest.mark.parametrize(("pool", "grid"), [("avg", 2), ("avg", 3), ("avg", 7), ("max", 2), ("max", 3)])
@torch.inference_mode()
def test_cells_pool_the_map_also_where_they_do_not_divide_it_evenly(pool: str, grid: int) -> None:
    backbone = backbone_of(RESNET, pool=pool, grid=grid)
    positions = drawn_out(backbone.feature_map(FRAMES), grid)
    expected = positions.amax(dim=3) if pool == "max" else positions.mean(dim=3)  # (N, G², D)
    pooled = backbone(FRAMES)
    assert pooled.shape == (2, 1 + grid**2, 512)
    assert torch.allclose(pooled[:, 1:], expected, atol=1e-5)
    assert torch.equal(pooled[:, 0], backbone_of(RESNET, pool=pool)(FRAMES))


@torch.inference_mode()
def test_the_cells_of_a_transformer_are_means_of_its_patches() -> None:
    backbone = backbone_of(find_backbone("timm/vit_tiny_patch16_224"), grid=2)
    assert isinstance(backbone, TokenBackbone)
    expected = drawn_out(backbone.feature_map(FRAMES), 2).mean(dim=3)
    pooled = backbone(FRAMES)
    assert torch.allclose(pooled[:, 1:], backbone.features.after_pooling(expected), atol=1e-5)
    assert torch.equal(pooled[:, 0], backbone_of(find_backbone("timm/vit_tiny_patch16_224"))(FRAMES))


@pytest.mark.slow
@pytest.mark.parametrize(("pool", "grid"), [("avg", 3), ("max", 2)])
def test_onnx_gives_pytorchs_cells(pool: str, grid: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    spec = BACKBONES["efficientnet_lite0"]
    torchs, exported = (
        load_engine(
            spec,
            weights=find_weights(spec, "default"),
            pool=pool,
            device="cpu",
            engine=name,
            grid=grid,
            num_frames=1,
        ).start(FRAMES.numpy())()[0]
        for name in ("torch", "onnx")
    )
    assert exported.shape == (2, 1 + grid**2, 1280)
    assert np.allclose(exported, torchs, atol=1e-4)


# Regions


@pytest.mark.parametrize(
    ("height", "width"), [(240, 320), (320, 240), (224, 224), (100, 4 * 100 * MAX_ASPECT_RATIO), (1080, 1920)]
)
@pytest.mark.parametrize("whole", [False, True])
def test_a_cells_region_is_where_the_backbone_sees_it(height: int, width: int, whole: bool) -> None:
    preprocessing = RESNET.preprocessing.whole if whole else RESNET.preprocessing
    regions = cell_regions(height, width, preprocessing, 3)
    assert regions[0].tolist() == [0, 0, 1, 1]
    for number, (x, y, w, h) in enumerate(regions[1:] * [width, height, width, height]):
        frame = np.zeros((1, height, width, 3), np.uint8)
        frame[:, round(y) : round(y + h), round(x) : round(x + w)] = 255
        seen = torch.from_numpy(resize_and_crop(frame, preprocessing)).float()[:, :1]
        shares = torch.nn.functional.adaptive_avg_pool2d(seen, 3).flatten() / 255  # (9,)
        assert shares.argmax() == number
        assert shares[number] > 0.93
        assert shares.sum() < 1.15


@pytest.mark.parametrize("grid", range(2, 8))
def test_cells_of_whole_pictures_fill_them(grid: int) -> None:
    regions = cell_regions(480, 639, RESNET.preprocessing.whole, grid)[1:].astype(np.float64)
    assert np.isclose((regions[:, 2] * regions[:, 3]).sum(), 1)
    assert np.unique(regions[:, :2], axis=0).shape == (grid**2, 2)


# Batches


class CellColours:
    """An engine that gives the mean colour of a picture, then of its four quarters."""

    name, device, dim, max_in_flight = "torch", "cpu", 3, 1
    preprocessing = Preprocessing(8, 8, "bilinear", mean=(0, 0, 0), std=(1, 1, 1))

    def start(self, frames: NDArray[np.uint8]) -> Finish:
        pictures = torch.from_numpy(frames).float()
        quarters = torch.nn.functional.adaptive_avg_pool2d(pictures, 2).flatten(2).transpose(1, 2)  # (N, 4, 3)
        features = torch.cat([pictures.mean(dim=(2, 3))[:, None], quarters], dim=1).numpy()
        return lambda: (features, 0.0)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_each_frame_gives_its_rows_whatever_the_batches(batch_size: int) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (7, 3, 8, 8), dtype=np.uint8)
    index = np.arange(7)
    rows = Rows(index / 25, index * 3, np.zeros(7, np.int32))
    plan = VideoPlan({"small": FramePlan(rows.frame_index, rows)})
    regions = cell_regions(96, 128, CellColours.preprocessing, 2)
    model = BatchedModel(CellColours(), batch_size, np.dtype(np.float32), Utilisation(), lambda info: regions)
    found = []
    for start in (0, 4):
        batch = FrameBatch(VideoFile("a", Path("a")), INFO, plan, "small", start, pictures[start : start + 4])
        found += list(model.add(batch))
    (sequence,) = (one for one in (*found, *model.flush()) if isinstance(one, FeatureSequence))
    assert np.array_equal(sequence.rows.frame_index, np.repeat(index * 3, 5))
    assert np.array_equal(sequence.region, np.tile(regions, (7, 1)))
    for frame, five in zip(pictures, sequence.features.reshape(7, 5, 3), strict=True):
        parts = [frame, frame[:, :4, :4], frame[:, :4, 4:], frame[:, 4:, :4], frame[:, 4:, 4:]]
        assert np.allclose(five, np.stack([part.mean(axis=(1, 2)) for part in parts]), atol=1e-3)


# From videos to the store and on


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`in/` with two videos, one bright at the bottom left, and their store `cells`."""
    folder = tmp_path_factory.mktemp("grid")
    grey = np.full((128, 128, 3), 90, np.uint8)
    bright = grey.copy()
    bright[84:118, 10:44] = 255
    for name, frame in (("grey", grey), ("bright", bright)):
        write_frames(folder / f"in/{name}.mp4", [frame] * 8)
    extracted = run("extract", folder / "in", "-o", folder / "cells", *LITE0, *CELLS)
    assert extracted.exit_code == 0, extracted.output
    assert "2 videos stored (8 frames" in extracted.stdout
    return folder


def test_a_frame_has_a_row_for_the_picture_and_one_for_each_cell(folder: Path) -> None:
    store = FeatureStore.open(folder / "cells")
    sequence = store["bright.mp4"]
    assert store.key.grid == 2
    assert np.array_equal(sequence.rows.frame_index, np.repeat([1, 3, 5, 7], 5))
    assert np.allclose(sequence.region[:2], np.array([[0, 0, 16, 16], [1, 1, 7, 7]]) / 16)  # 224 of 256 pixels
    assert np.allclose(sequence.region[3::5], np.array([1, 8, 7, 7]) / 16)
    change = np.abs(sequence.features - store["grey.mp4"].features).mean(axis=1).reshape(4, 5)
    assert (change[:, 1:].argmax(axis=1) == 2).all()  # the cell at the bottom left


def test_the_row_of_the_picture_is_that_of_an_extraction_without_cells(folder: Path, tmp_path: Path) -> None:
    config = ExtractConfig(backbone="efficientnet_lite0", num_frames=4, device="cpu", workers=1)
    extract(find_videos([folder / "in"]), tmp_path / "plain", config=config)
    plain, cells = (FeatureStore.open(path) for path in (tmp_path / "plain", folder / "cells"))
    for video_id in plain.ids:
        assert np.allclose(cells[video_id].features[::5], plain[video_id].features, rtol=1e-4, atol=1e-4)
    assert replace(cells.key, grid=1) == plain.key


def test_a_store_of_cells_is_verified_merged_compacted_exported_and_shown(folder: Path, tmp_path: Path) -> None:
    store = FeatureStore.open(folder / "cells")
    assert not list(find_damage(store))
    merge([store], tmp_path / "merged")
    compacted = run("store", "compact", tmp_path / "merged")
    assert compacted.exit_code == 0, compacted.output
    assert_same(FeatureStore.open(tmp_path / "merged")["bright.mp4"], store["bright.mp4"])
    exported = run("store", "export", folder / "cells", "-o", tmp_path / "out", "--format", "h5")
    assert exported.exit_code == 0, exported.output
    with h5py.File(tmp_path / "out/features.h5") as file:
        assert np.array_equal(file["region/bright.mp4"], store["bright.mp4"].region)
    shown = run("info", folder / "cells", "--format", "json")
    assert '"frames": 8' in shown.stdout


def test_cells_are_refused_by_a_store_without_them(folder: Path) -> None:
    refused = run("extract", folder / "in", "-o", folder / "cells", *LITE0, "--num-frames", 4)
    assert refused.exit_code == 1
    assert "2 × 2 cells of each picture; you asked for efficientnet_lite0 features, no cells" in refused.stderr


# Heads

DIM, NUM_CELLS = 6, 5
LENGTHS = (5, 1, 9, 3)


def make_head(name: str, *, num_cells: int = NUM_CELLS) -> Head:
    torch.manual_seed(0)
    head = build_head(name, DIM, 3, TrainConfig(head=name, hidden_size=12), num_cells=num_cells)
    head.motion.fit([(torch.randn(5, 10, NUM_CELLS * DIM) * 3 + 1, torch.full((5,), 10))])
    return head.eval()


def make_sequences() -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randn(length, NUM_CELLS * DIM) for length in LENGTHS]


@pytest.mark.parametrize("name", HEADS)
@torch.inference_mode()
def test_padding_never_changes_a_prediction_from_cells(name: str) -> None:
    head, sequences = make_head(name), make_sequences()
    alone = torch.cat([head(sequence[None], torch.tensor([len(sequence)])) for sequence in sequences])
    rubbish = torch.full((len(sequences), 20, NUM_CELLS * DIM), 1e6)
    for row, sequence in zip(rubbish, sequences, strict=True):
        row[: len(sequence)] = sequence
    assert torch.allclose(head(*pad(sequences)), alone, atol=1e-5)
    assert torch.allclose(head(rubbish, torch.tensor(LENGTHS)), alone, atol=1e-5)


@pytest.mark.parametrize("name", HEADS)
@torch.inference_mode()
def test_only_attention_sees_the_cells(name: str) -> None:
    head = make_head(name)
    features, lengths = pad(make_sequences())
    others = features.clone()
    others[:, :, DIM:] += 1 + torch.randn_like(others[:, :, DIM:])
    assert torch.equal(head(features, lengths), head(others, lengths)) == (name not in SEE_CELLS)
    if name not in SEE_CELLS:
        plain = make_head(name, num_cells=1)
        assert torch.equal(plain(features[:, :, :DIM], lengths), head(features, lengths))


@torch.inference_mode()
def test_a_cell_is_compared_with_itself_over_time() -> None:
    motion = Motion(DIM, transforms=list(TRANSFORMS), unit_frames=True, scale_sharing=0.5, num_cells=NUM_CELLS)
    motion.mean, motion.scale = torch.randn_like(motion.mean), torch.rand_like(motion.scale) + 0.5
    one = Motion(DIM, transforms=list(TRANSFORMS), unit_frames=True, scale_sharing=0.5)
    one.load_state_dict(motion.state_dict())
    features, lengths = pad(make_sequences())
    seen = motion(features, lengths).reshape(4, 9, NUM_CELLS, 4 * DIM)
    for cell in range(NUM_CELLS):
        expected = one(features[:, :, cell * DIM : (cell + 1) * DIM], lengths)
        assert torch.allclose(seen[:, :, cell], expected, atol=1e-6)


def placed(number: int) -> FeatureSequence:
    """Four frames of 1 + 2 × 2 cells; the same feature is in one cell of every frame, in another for each class."""
    random = np.random.default_rng(number)
    features = random.normal(0, 0.1, (4, NUM_CELLS, DIM)).astype(np.float32)
    features[:, :, 1] += 1
    features[:, 1 + number % 4, 0] += 2
    frames = np.arange(4).repeat(NUM_CELLS)
    regions = np.tile(cell_regions(96, 128, RESNET.preprocessing, 2), (4, 1))
    rows = Rows(frames / 25, frames, np.zeros(len(frames), np.int32), region=regions)
    return FeatureSequence(f"{number}.mp4", features.reshape(-1, DIM), rows, INFO)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> SequenceDataset:
    """Videos whose class is where in the picture something is; the whole picture does not tell."""
    store = FeatureStore.create(tmp_path_factory.mktemp("places") / "store", replace(KEY, grid=2))
    with store.writer() as writer:
        for number in range(80):
            writer.add(placed(number))
    videos = [LabeledVideo(f"{number}.mp4", "abcd"[number % 4]) for number in range(80)]
    return SequenceDataset(FeatureStore.open(store.path), videos, "abcd")


def test_a_dataset_gives_the_cells_of_each_frame_together(places: SequenceDataset) -> None:
    assert (places.dim, places.num_cells, set(places.lengths.tolist())) == (DIM, NUM_CELLS, {4})
    batch = next(places.batches(3))
    assert np.array_equal(batch.features[2].reshape(20, DIM), placed(2).features)
    assert np.array_equal(places.sequence(2), placed(2).features[::5])


def test_attention_over_cells_learns_where_something_is(places: SequenceDataset) -> None:
    names = places.video_ids
    subsets = {"train": places.select(names[:40]), "val": places.select([])}
    test = places.select(names[40:])
    correct = {}
    for name in ("attention", "statistics"):
        config = TrainConfig(head=name, motion="raw", statistics="mean", lr=0.05, dropout=0.3, epochs=60, device="cpu")
        head, _ = fit_head(name, subsets, config)
        correct[name] = (compute_logits(head, test).argmax(dim=1) == test.class_index).float().mean()
    assert correct["attention"] > 0.9
    assert correct["statistics"] < 0.5


def test_a_run_of_cells_predicts_the_same_from_videos_and_from_their_store(folder: Path, tmp_path: Path) -> None:
    merge([FeatureStore.open(folder / "cells")], tmp_path / "cells")
    store, random = FeatureStore.open(tmp_path / "cells"), np.random.default_rng(0)
    with store.writer() as writer:
        for number in range(6):
            features = random.random(store["grey.mp4"].features.shape, np.float32)
            writer.add(replace(store["grey.mp4"], video_id=f"{number}.mp4", features=features))
    names = ["grey.mp4", "bright.mp4", *(f"{number}.mp4" for number in range(6))]
    labels = [f"{name},{'ab'[number % 2]}" for number, name in enumerate(names)]
    (tmp_path / "labels.csv").write_text("\n".join(["video,label", *labels]))
    options = (
        "--labels",
        tmp_path / "labels.csv",
        "--head",
        "attention",
        "--epochs",
        2,
        "--no-refit",
        "--device",
        "cpu",
    )
    trained = run("train", tmp_path / "cells", "-o", tmp_path / "run", *options)
    assert trained.exit_code == 0, trained.output
    command = ("predict", tmp_path / "run", folder / "in", "--device", "cpu", "--format", "json")
    fresh, stored = run(*command), run(*command, "--store", tmp_path / "cells")
    assert fresh.exit_code == stored.exit_code == 0, fresh.output
    assert fresh.stdout == stored.stdout
    first = next(predict(Run.open(tmp_path / "run"), find_videos([folder / "in"]), config=ExtractConfig(device="cpu")))
    assert first.num_frames == 4
    evaluated = run("evaluate", tmp_path / "run", tmp_path / "cells", "--labels", tmp_path / "labels.csv")
    assert evaluated.exit_code == 0, evaluated.output


def test_rows_that_are_no_whole_number_of_pictures_are_named(tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path / "cells", replace(KEY, grid=2))
    with store.writer() as writer:
        writer.add(make_sequence("a/odd.mp4", length=7, dim=3))
    store = FeatureStore.open(tmp_path / "cells")
    with pytest.raises(StoreError, match=r"cells: a/odd.mp4: 7 rows are not a whole number of pictures of 5 cells"):
        SequenceDataset(store, [LabeledVideo("a/odd.mp4", "a")], ["a"])


# Backbones without a map


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--backbone", "lenet5"),
            "--grid 2 needs a feature map, and the feature of lenet5 is a whole layer",
        ),
        (("--backbone", "siglip_b16"), "does not go with --pool attention"),
        (("--backbone", "alexnet", "--grid", "7"), "--grid 7 is finer than its feature map of 6 × 6; take a smaller"),
        (("--backbone", "r3d_18"), "--grid 2 goes with image models, and r3d_18 sees windows of frames; leave"),
        (("--backbone", "flow"), "--grid 2 goes with image models, and flow sees windows of frames; leave"),
    ],
)
def test_a_backbone_without_a_map_has_no_cells(options: tuple[str, ...], message: str, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"")
    result = run("extract", tmp_path / "a.mp4", "-o", tmp_path / "s", "--weights", "random", "--grid", 2, *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "s").exists()


def test_a_stream_of_windows_beside_an_image_model_has_no_cells() -> None:
    streams = resolve_streams(ExtractConfig(backbone="efficientnet_lite0,flow", grid=3))
    assert {name: stream.key.grid for name, stream in streams.items()} == {"efficientnet_lite0": 3, "flow": 1}


def test_a_grid_finer_than_the_map_is_refused() -> None:
    with pytest.raises(UsageError, match="--grid 7 is finer than its feature map of 6 × 6"):
        backbone_of(BACKBONES["alexnet"], grid=7)
