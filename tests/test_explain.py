"""The parts of a margin add up to it, and lie where and when something happens."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.commands import LITE0, run
from tests.media import add_sound, moving_square, packets, times, write_frames
from vidpipe.backbones.flow import FlowParameters
from vidpipe.backbones.frozen import FrozenNetwork
from vidpipe.backbones.image import load_backbone
from vidpipe.backbones.table import find_backbone
from vidpipe.backbones.weights import find_weights
from vidpipe.config import TrainConfig
from vidpipe.explain.explanation import ExplainedVideo, Explanation, explain_video
from vidpipe.explain.places import FlowView, NetworkView, StreamView
from vidpipe.explain.shares import share_out
from vidpipe.heads.fusion import Fusion, MemberHeads
from vidpipe.heads.heads import HEADS, Head, LinearHead, build_head
from vidpipe.heads.members import Member
from vidpipe.records import Preprocessing, Rows
from vidpipe.runs.run import Run
from vidpipe.stages.explain import explain
from vidpipe.video.files import find_videos

LINEAR: list[dict[str, Any]] = [
    {"head": "mean"},
    {"head": "statistics"},
    {"head": "statistics", "motion": "raw,difference", "statistics": "mean,thirds", "unit_frames": False},
    {"head": "statistics", "motion": "raw,centred,difference,magnitude", "statistics": "mean,deviation,thirds"},
]
NEURAL = [{"head": name} for name in HEADS if name not in ("mean", "statistics")]


class Network(FrozenNetwork):
    """A convolution of random weights under average, or maximum, pooling."""

    def __init__(self, pool: str, grid: int = 1) -> None:
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Conv2d(3, 12, 5, stride=5), nn.ReLU())
        preprocessing = Preprocessing(30, 30, "bilinear", mean=(0, 0, 0), std=(1, 1, 1))
        super().__init__(layers, dim=12, pool=pool, preprocessing=preprocessing)
        self.grid = grid

    @property
    def pools_each_channel(self) -> bool:
        return True

    def run(self, frames: Tensor) -> Tensor:
        maps: Tensor = self.features(self.normalise(frames))
        return maps

    def pool(self, output: Tensor) -> Tensor:
        if self.pooling == "max":
            return output.amax(dim=(2, 3))
        pooled = output.mean(dim=(2, 3))
        if self.grid == 1:
            return pooled
        cells = nn.functional.adaptive_avg_pool2d(output, self.grid).flatten(2).transpose(1, 2)
        return torch.cat([pooled[:, None], cells], dim=1)


def frames_of(num_frames: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (num_frames, 3, 30, 30), dtype=np.uint8)


def view_of(network: FrozenNetwork, num_frames: int = 7, seed: int = 0) -> NetworkView:
    return NetworkView(network, frames_of(num_frames, seed))


def fitted_head(view: StreamView, num_cells: int = 1, num_classes: int = 3, **settings: Any) -> Head:
    """A head of random weights, normalised by the statistics of other videos."""
    torch.manual_seed(1)
    config = TrainConfig(hidden_size=16, ensemble=1, **settings)
    dim = view.features.shape[1] // num_cells
    head = build_head(config.head, dim, num_classes, config, num_cells=num_cells)
    others = view.features[torch.randperm(len(view.features))] * 1.3 + 0.02
    head.motion.fit([(others[None], torch.tensor([len(others)]))])
    for parameter in head.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return head.eval()


def rows_for(view: StreamView) -> Rows:
    count = len(view.features)
    return Rows(np.arange(count) / 10, np.arange(count), np.zeros(count, np.int32))


def explained(views: dict[str, StreamView], fusion: Fusion, **options: Any) -> Explanation:
    rows = {name: rows_for(view) for name, view in views.items()}
    return explain_video(fusion.eval(), views, rows, ["a", "b", "c"], **options)


def alone(head: Head, kind: str = "statistics") -> Fusion:
    return Fusion([MemberHeads(Member(("s",), kind), [head])])


@pytest.mark.parametrize("settings", LINEAR)
@pytest.mark.parametrize("pool", ["avg", "max"])
def test_the_shares_of_a_linear_head_add_up_to_the_margin_less_the_bias(settings: dict[str, Any], pool: str) -> None:
    view = view_of(Network(pool))
    head = fitted_head(view, **settings)
    with torch.no_grad():
        logits = head(view.features[None], torch.tensor([7]))[0]
    found = explained({"s": view}, alone(head), label="b")
    assert found.margin == pytest.approx(float(logits[1] - logits.mean()), abs=1e-5)
    assert abs(found.residual) < 1e-4
    assert found.is_exact
    (stream,) = found.streams
    assert stream.places is not None
    assert stream.places.shape == (7, 6, 6)
    assert np.allclose(stream.places.sum(axis=(1, 2)), stream.shares, atol=1e-5)
    assert isinstance(head, LinearHead)
    bias = head.classifier.bias.detach()
    assert found.bias == pytest.approx(float(bias[1] - bias.mean()), abs=1e-5)


@pytest.mark.parametrize("settings", NEURAL)
def test_the_shares_of_a_neural_head_add_up_as_well_as_they_are_integrated(settings: dict[str, Any]) -> None:
    view = view_of(Network("avg"))
    found = explained({"s": view}, alone(fitted_head(view, **settings)), label="a", against="c")
    divided = abs(found.margin - found.bias)
    assert not found.is_exact
    assert abs(found.residual) < 0.02 * divided + 1e-3
    assert np.allclose(found.streams[0].places.sum(axis=(1, 2)), found.streams[0].shares, atol=1e-4)  # type: ignore[union-attr]


def test_the_bias_of_a_neural_head_is_its_margin_for_the_average_row() -> None:
    view = view_of(Network("avg"))
    head = fitted_head(view, head="tcn", motion="raw", unit_frames=False)
    average = head.motion.mean.expand(1, 7, -1)
    with torch.no_grad():
        logits = head(average, torch.tensor([7]))[0]
    found = share_out(head, view.features, torch.tensor([1.0, -1.0, 0.0]))
    assert found.bias == pytest.approx(float(logits[0] - logits[1]), abs=1e-5)


def test_cells_of_a_grid_are_divided_between_the_places_they_cover() -> None:
    view = view_of(Network("avg", grid=2))
    head = fitted_head(view, num_cells=5, head="attention")
    (stream,) = explained({"s": view}, alone(head, "attention"), label="a").streams
    assert stream.places is not None
    assert np.allclose(stream.places.sum(axis=(1, 2)), stream.shares, atol=1e-4)
    without = explained({"s": view}, alone(fitted_head(view, num_cells=5, head="attention")), label="a").streams[0]
    assert np.allclose(without.shares, stream.shares)


def test_maps_of_a_mean_over_average_pooling_are_those_of_grad_cam() -> None:
    network, frames = Network("avg"), frames_of(5)
    view = NetworkView(network, frames)
    head = fitted_head(view, head="mean")
    head.motion.mean.zero_()  # otherwise the map of the average frame is spread over all places

    class Whole(nn.Module):
        def forward(self, one: Tensor) -> Tensor:
            logits: Tensor = head(network.pool(network.features(one)).flatten(1)[:, None], torch.tensor([1]))
            return logits

    (stream,) = explained({"s": view}, alone(head), label="b", against="a").streams
    for number, frame in enumerate(frames):
        cam = LayerGradCam(Whole(), network.features[1])  # type: ignore[index]
        pixels = network.normalise(torch.from_numpy(frame[None])).requires_grad_()
        maps = [cam.attribute(pixels, target=index)[0, 0].detach() for index in (1, 0)]
        expected = (maps[0] - maps[1]).numpy() / len(frames)
        assert np.abs(stream.places[number] - expected).max() < 1e-5  # type: ignore[index]


def test_the_margins_of_fused_streams_add_up() -> None:
    first, second = view_of(Network("avg")), view_of(Network("max"), num_frames=5, seed=3)
    views: dict[str, StreamView] = {"first": first, "second": second}
    late = [
        MemberHeads(Member((name,), head), [fitted_head(view, head=head)])
        for name, view in views.items()
        for head in ("statistics", "mean")
    ]
    early = MemberHeads(
        Member(("first", "second"), "mean"), [fitted_head(view, head="mean") for view in views.values()]
    )
    fusion = Fusion([*late, early], weights=[0.5, 2.0, 1.0, 0.0, 0.7], temperature=1.7)
    with torch.no_grad():
        padded = {name: (view.features[None], torch.tensor([len(view.features)])) for name, view in views.items()}
        logits = fusion(padded)[0]
    found = explained(views, fusion, label="c")
    assert found.margin == pytest.approx(float(logits[2] - logits.mean()), abs=1e-5)
    assert abs(found.residual) < 1e-4
    assert found.probability == pytest.approx(float(logits.softmax(0)[2]))


def test_a_share_that_all_rows_have_is_not_laid_on_one_of_them() -> None:
    """A head of thirds weighs the same picture differently over time; a still video says nothing about when."""
    still = np.repeat(frames_of(1), 9, axis=0)
    view = NetworkView(Network("avg"), still)
    head = fitted_head(view_of(Network("avg"), 9), head="statistics", motion="raw", statistics="thirds")
    (stream,) = explained({"s": view}, alone(head), label="a").streams
    assert np.ptp(stream.shares) < 1e-5
    assert abs(stream.shares.sum()) > 1e-2


def test_random_weights_of_the_head_give_other_maps() -> None:
    """Adebayo et al. 2018: what a map shows must depend on what was learned."""
    view = view_of(Network("avg"), 12)
    head = fitted_head(view, head="statistics")
    (learned,) = explained({"s": view}, alone(head), label="a").streams
    similarity = []
    for seed in range(8):
        torch.manual_seed(seed)
        head.classifier.weight.data.normal_()  # type: ignore[union-attr, operator]
        (random,) = explained({"s": view}, alone(head), label="a").streams
        similarity.append(np.corrcoef(learned.places.ravel(), random.places.ravel())[0, 1])  # type: ignore[union-attr]
    assert np.abs(np.mean(similarity)) < 0.3
    assert max(similarity) < 0.9


def moving_dot(corner: tuple[int, int], first: int, last: int) -> NDArray[np.uint8]:
    """(12, 5, 3, 96, 96) windows of a textured picture in which a square moves to the right from `first` to `last`."""
    random = np.random.default_rng(0)
    background = random.integers(60, 160, (24, 24, 3), dtype=np.uint8).repeat(4, axis=0).repeat(4, axis=1)
    square = random.integers(0, 256, (8, 8, 3), dtype=np.uint8).repeat(3, axis=0).repeat(3, axis=1)
    frames = []
    for step in range(60):
        frame, (top, left) = background.copy(), corner
        shift = 2 * (min(max(step, first * 5), last * 5) - first * 5) % 16
        frame[top : top + 24, left + shift : left + shift + 24] = square
        frames.append(frame.transpose(2, 0, 1))
    return np.stack(frames).reshape(12, 5, 3, 96, 96)


def test_flow_is_divided_by_cell_and_by_direction() -> None:
    view = FlowView(moving_dot((4, 4), 4, 8), FlowParameters())
    head = fitted_head(FlowView(moving_dot((60, 50), 0, 12), FlowParameters()), head="statistics")
    (stream,) = explained({"s": view}, alone(head), label="a").streams
    assert stream.places is not None
    assert stream.directions is not None
    assert (stream.places.shape, stream.directions.shape) == ((12, 3, 3), (12, 9))
    assert np.allclose(stream.places.sum(axis=(1, 2)), stream.shares, atol=1e-5)
    assert np.allclose(stream.directions.sum(axis=1), stream.shares, atol=1e-5)
    changes = np.abs(stream.places - np.median(stream.places, axis=0)).sum(axis=0)
    assert changes[0, 0] > 10 * changes[2, 2]


@pytest.mark.parametrize("pool", ["token", "tokens"])
def test_the_places_of_a_transformer_are_its_patches(pool: str) -> None:
    """Only a patch in the last row and column differs between the frames, so the evidence lies there."""
    spec = find_backbone("vit_tiny")
    backbone = load_backbone(spec, weights=find_weights(spec, "random"), pool=pool, device="cpu")
    frames = np.full((4, 3, spec.input_size, spec.input_size), 90, np.uint8)
    for number, frame in enumerate(frames):
        frame[:, -16:, -16:] = 60 * number
    view = NetworkView(backbone, frames)
    head = fitted_head(view, head="statistics", motion="centred", statistics="thirds")
    (stream,) = explained({"s": view}, alone(head), label="a").streams
    assert stream.places is not None
    assert stream.places.shape == (4, 14, 14)
    total = np.abs(stream.places).sum(axis=0)
    assert total.argmax() == 14 * 14 - 1
    if pool == "tokens":
        assert np.allclose(stream.places.sum(axis=(1, 2)), stream.shares, atol=1e-4)


# As a user gets it


def test_the_command_writes_pictures_a_video_and_numbers_that_add_up(made: Path, tmp_path: Path) -> None:
    write_frames(tmp_path / "silent.mp4", moving_square(40, to_the_right=True))
    video = add_sound(tmp_path / "silent.mp4", tmp_path / "new.mp4", "aac")
    result = run("explain", "run", made / "run", video, "-o", tmp_path / "why", "--format", "json", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "lenet5: its features have no places" in result.stderr
    folder = tmp_path / "why/new.mp4"
    assert sorted(path.name for path in folder.iterdir()) == ["contact.png", "explanation.json", "heat.mp4"]
    numbers = json.loads((folder / "explanation.json").read_text())
    assert json.loads(result.stdout.splitlines()[0]) == numbers
    shares = [row["share"] for stream in numbers["streams"] for row in stream["rows"]]
    assert sum(shares) + numbers["bias"] + numbers["residual"] == pytest.approx(numbers["margin"])
    assert times(folder / "heat.mp4") == times(video)
    assert packets(folder / "heat.mp4", "audio") == packets(video, "audio")
    predicted = json.loads(run("predict", made / "run", video, "--format", "json", "--device", "cpu").stdout)
    assert numbers["label"] == predicted["label"]
    assert numbers["probability"] == pytest.approx(predicted["probability"], abs=1e-4)
    again = run("explain", "run", made / "run", video, "-o", tmp_path / "why")
    assert "new.mp4: holds an explanation; choose another folder, or give --overwrite" in again.output
    options = ("--overwrite", "--no-video", "--label", "left", "--against", "right", "--device", "cpu")
    replaced = run("explain", "run", made / "run", video, "-o", tmp_path / "why", *options)
    assert "new.mp4: logit of left less the logit of right: " in replaced.stdout


def test_the_report_says_what_spoke_for_each_mistake_and_shows_typical_videos(made: Path, tmp_path: Path) -> None:
    for options, expected in ((), True), (("--no-heat-maps",), False):
        out = ("-o", tmp_path / "page.html", "--videos", made / "videos")
        result = run("report", made / "run", *out, *options)
        assert result.exit_code == 0, result.output
        page = (tmp_path / "page.html").read_text()
        assert ("average video" in page) == bool(re.search(r"<figcaption>[+-]\d", page)) == expected
        assert page.count("most typical: ") >= 1
        rows = [row for row in Run.open(made / "run").predictions if row.split == "test" and row.head != "mean"]
        best = max((row for row in rows if row.right and row.label == "left"), key=lambda row: row.probability)
        assert f"most typical: <bdi>{best.video}</bdi>" in page


def test_a_run_whose_weights_are_missing_has_a_report_without_heat_maps(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "run", tmp_path / "run")
    document = json.loads((tmp_path / "run/run.json").read_text())
    document["streams"][0]["key"]["weights"] = "0" * 64
    (tmp_path / "run/run.json").write_text(json.dumps(document))
    result = run("report", tmp_path / "run", "--videos", made / "videos")
    assert result.exit_code == 0, result.output
    assert "frames have no heat maps: " in result.stderr
    assert "data:image/jpeg" in (tmp_path / "run/report.html").read_text()
    refused = run("explain", "run", tmp_path / "run", made / "new/a.mp4", "-o", tmp_path / "why")
    assert "features are of other weights of lenet5" in refused.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--label", "rigth"), "unknown label 'rigth'; did you mean 'right'? Known: left, right"),
        (("--label", "right", "--against", "right"), "--against right: is the label itself"),
    ],
)
def test_a_label_that_the_run_does_not_know_is_refused(made: Path, tmp_path: Path, options: Any, message: str) -> None:
    result = run("explain", "run", made / "run", made / "new/a.mp4", "-o", tmp_path / "why", *options)
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "why").exists()


def test_a_video_of_one_frame_has_a_warning_and_a_file_that_is_none_fails_alone(made: Path, tmp_path: Path) -> None:
    write_frames(tmp_path / "videos/one.mp4", moving_square(3, to_the_right=True)[:1])
    write_frames(tmp_path / "videos/many.mp4", moving_square(3, to_the_right=True))
    (tmp_path / "videos/bad.mp4").write_text("no video")
    result = run("explain", "run", made / "run", tmp_path / "videos", "-o", tmp_path / "why", "--no-video")
    assert result.exit_code == 3
    assert "one.mp4: a single row, so nothing changes in it" in result.stderr
    assert "bad.mp4: not a media file" in result.stderr
    assert sorted(path.name for path in (tmp_path / "why").iterdir()) == ["many.mp4", "one.mp4"]


# Where and when something happens


QUADRANTS = {"top left": (8, 8), "top right": (8, 114), "bottom left": (114, 8), "bottom right": (114, 114)}


def quadrant_video(seed: int, quadrant: str, third: int | None) -> list[NDArray[np.uint8]]:
    """A textured square in a quadrant that moves in one third of the time, to and fro, or never."""
    random = np.random.default_rng(seed)
    goes_down = bool(random.integers(2))
    background = random.integers(70, 150, (12, 12, 3), dtype=np.uint8).repeat(16, axis=0).repeat(16, axis=1)
    square = random.integers(0, 256, (4, 4, 3), dtype=np.uint8).repeat(10, axis=0).repeat(10, axis=1)
    top, left = QUADRANTS[quadrant]
    frames = []
    for step in range(60):
        since = 0 if third is None else min(max(step - 20 * third, 0), 20)
        shift = 3 * (10 - abs(10 - since))
        frame = background.copy()
        down, right = (shift, 0) if goes_down else (0, shift)
        frame[top + down : top + down + 40, left + right : left + right + 40] = square
        frames.append(frame)
    return frames


@pytest.fixture(scope="module")
def moves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`run`, `lstm` and `fused` that know whether something moves, and four new videos in `new/`."""
    folder = tmp_path_factory.mktemp("moves")
    for seed in range(48):
        quadrant = list(QUADRANTS)[seed % 4]
        third = None if seed < 24 else seed % 3
        label = "still" if third is None else "moves"
        write_frames(folder / "videos" / label / f"{seed}.mp4", quadrant_video(seed, quadrant, third))
    for number, quadrant in enumerate(QUADRANTS):
        write_frames(folder / "new" / f"{number}.mp4", quadrant_video(50 + number, quadrant, number % 3))
    streams = (*LITE0, "--backbone", "flow", "--crop", "whole", "--num-frames", 12)
    extracted = run("extract", folder / "videos", "-o", folder / "features", *streams)
    assert extracted.exit_code == 0, extracted.output
    for name, options in {
        "statistics": ("--streams", "efficientnet_lite0"),
        "lstm": ("--streams", "efficientnet_lite0", "--head", "lstm"),
        "fused": ("--head", "statistics"),
    }.items():
        trained = run("train", folder / "features", "-o", folder / name, *options, "--device", "cpu")
        assert trained.exit_code == 0, trained.output
    return folder


def centre(places: NDArray[np.float64]) -> tuple[float, float]:
    """Row and column of the centre of mass of what spoke for the label, as shares of the sides."""
    positive = np.clip(places.sum(axis=0), 0, None)
    axes = [(np.arange(side) + 0.5) / side for side in positive.shape]
    down, right = np.meshgrid(*axes, indexing="ij")
    return float((positive * down).sum() / positive.sum()), float((positive * right).sum() / positive.sum())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["statistics", "lstm", "fused"])
def test_the_heat_lies_where_and_when_something_moves(moves: Path, name: str) -> None:
    opened = Run.open(moves / name)
    videos = find_videos([moves / "new"])
    each = explain(opened, videos, questions={video.id: ("moves", None) for video in videos})
    found = {one.video.id: one for one in each if isinstance(one, ExplainedVideo)}
    assert len(found) == 4
    for number, quadrant in enumerate(QUADRANTS):
        for stream in found[f"{number}.mp4"].explanation.streams:
            third = number % 3
            by_third = stream.shares.reshape(3, 4).sum(axis=1)
            assert by_third.argmax() == third, (stream.name, quadrant, by_third)
            assert stream.places is not None
            down, right = centre(stream.places[4 * third : 4 * third + 4])
            assert (down < 0.5, right < 0.5) == ("top" in quadrant, "left" in quadrant), (stream.name, down, right)
