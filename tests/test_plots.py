"""The pictures of a run, by what matplotlib draws and by the pixels of the files."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from vidpipe.runs.confusion import ConfusedPair, ConfusionMatrix
from vidpipe.runs.curves import Curve, learning_curves
from vidpipe.runs.plots import Filmstrip, plot_confusion, plot_filmstrips, plot_history
from vidpipe.runs.tables import Epoch

DPI = 150
HISTORY = [
    *(Epoch(n, 1 / n, n / 4, 2 / n, n / 8) for n in (1, 2, 3)),
    *(Epoch(n, 3 / n, n / 5, 4 / n, n / 9, member=1) for n in (1, 2)),
]
COUNTS = [[3, 1, 0], [0, 4, 0], [2, 2, 1]]
NAMES = ["a", "b", "c"]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved in a test, in order."""
    saved: list[Figure] = []
    save = Figure.savefig

    def save_and_keep(figure: Figure, *arguments: object, **options: object) -> None:
        save(figure, *arguments, **options)  # type: ignore[arg-type]
        saved.append(figure)

    monkeypatch.setattr(Figure, "savefig", save_and_keep)
    return saved


def lines_of(axes: Axes) -> dict[str, tuple[list[float], list[float]]]:
    """The curves of a plot: label to x and y."""
    return {str(line.get_label()): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}  # type: ignore[arg-type]


def test_curves_are_those_of_the_history_in_a_fixed_order() -> None:
    curves = learning_curves(HISTORY)
    assert [(curve.quantity, curve.subset, curve.member) for curve in curves] == [
        (quantity, subset, member) for quantity in ("loss", "top1") for subset in ("train", "val") for member in (0, 1)
    ]
    assert curves[0] == Curve("loss", "train", "", 0, ((1, 1.0), (2, 0.5), (3, 1 / 3)))
    assert curves[7] == Curve("top1", "val", "", 1, ((1, 1 / 9), (2, 2 / 9)))


def test_there_is_no_curve_without_validation_or_of_values_that_are_not_finite() -> None:
    history = [Epoch(1, float("nan"), 0.5), Epoch(2, float("inf"), 0.75)]
    assert learning_curves(history) == (Curve("top1", "train", "", 0, ((1, 0.5), (2, 0.75))),)
    assert learning_curves([]) == ()


def test_the_plot_of_a_history_shows_loss_and_accuracy_of_the_first_member(
    tmp_path: Path, figures: list[Figure]
) -> None:
    plot_history(tmp_path / "history.png", HISTORY)
    loss, accuracy = figures[0].axes
    assert (loss.get_title(), accuracy.get_title()) == ("loss", "top-1 accuracy")
    assert loss.get_xlabel() == accuracy.get_xlabel() == "epoch"
    assert lines_of(loss) == {"train": ([1, 2, 3], [1, 1 / 2, 1 / 3]), "val": ([1, 2, 3], [2, 1, 2 / 3])}
    assert lines_of(accuracy) == {
        "train": ([1, 2, 3], [1 / 4, 2 / 4, 3 / 4]),
        "val": ([1, 2, 3], [1 / 8, 2 / 8, 3 / 8]),
    }


def test_a_single_epoch_is_drawn_as_a_point(tmp_path: Path, figures: list[Figure]) -> None:
    plot_history(tmp_path / "history.png", [Epoch(1, 0.5, 0.75)])
    plot_history(tmp_path / "longer.png", HISTORY)
    point, line = (figure.axes[0].lines[0] for figure in figures)
    assert (point.get_marker(), line.get_marker()) == ("o", "None")
    assert lines_of(figures[0].axes[0]) == {"train": ([1], [0.5])}


def test_a_confusion_matrix_has_its_counts_shares_and_names(tmp_path: Path, figures: list[Figure]) -> None:
    plot_confusion(tmp_path / "confusion.png", COUNTS, NAMES, "lstm, test videos")
    axes = figures[0].axes[0]
    assert axes.get_title() == "lstm, test videos"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "label")
    assert [text.get_text() for text in axes.get_xticklabels()] == NAMES
    assert [text.get_text() for text in axes.get_yticklabels()] == NAMES
    written = {text.get_position()[::-1]: int(text.get_text()) for text in axes.texts}
    assert written == {
        (row, column): COUNTS[row][column] for row in range(3) for column in range(3) if COUNTS[row][column]
    }
    expected = np.array([[3 / 4, 1 / 4, 0], [0, 1, 0], [2 / 5, 2 / 5, 1 / 5]])
    assert np.array_equal(axes.images[0].get_array(), expected)  # type: ignore[arg-type]


def test_the_pixels_of_a_confusion_matrix_are_shaded_by_share(tmp_path: Path, figures: list[Figure]) -> None:
    plot_confusion(tmp_path / "confusion.png", COUNTS, NAMES, "")
    picture = Image.open(tmp_path / "confusion.png").convert("RGB")
    axes = figures[0].axes[0]
    shades = matplotlib.colormaps["Blues"]
    for row in range(3):
        for column in range(3):
            corner = axes.transData.transform((column + 0.35, row + 0.35)) * DPI / figures[0].dpi  # beside the count
            pixel = picture.getpixel((round(corner[0]), picture.height - round(corner[1])))
            expected = shades(COUNTS[row][column] / sum(COUNTS[row]), bytes=True)[:3]
            assert pixel == pytest.approx(tuple(int(value) for value in expected), abs=2)


def test_a_matrix_of_many_classes_has_no_counts_and_a_class_without_videos_is_blank(
    tmp_path: Path, figures: list[Figure]
) -> None:
    counts = np.diag([0, *[2] * 30])
    plot_confusion(tmp_path / "confusion.png", counts.tolist(), [f"class {n}" for n in range(31)], "many")
    axes = figures[0].axes[0]
    assert len(axes.texts) == 0
    assert np.array_equal(axes.images[0].get_array(), np.diag([0.0, *[1.0] * 30]))  # type: ignore[arg-type]


def test_the_most_confused_classes_keep_their_order_and_their_shares() -> None:
    matrix = ConfusionMatrix.from_counts([[5, 0, 0, 0], [0, 6, 2, 0], [0, 1, 6, 1], [0, 0, 0, 9]], ["a", "b", "c", "d"])
    assert matrix.most_confused(4) is matrix
    kept = matrix.most_confused(2)
    assert kept.class_names == ("b", "c")
    assert kept.counts.tolist() == [[6, 2], [1, 6]]
    assert kept.shares.tolist() == [[6 / 8, 2 / 8], [1 / 8, 6 / 8]]


def test_confused_pairs_are_sorted_by_count_then_by_share() -> None:
    matrix = ConfusionMatrix.from_counts([[3, 2, 0], [2, 0, 0], [0, 1, 9]], NAMES)
    assert matrix.pairs(2) == [ConfusedPair("b", "a", 2, 1.0), ConfusedPair("a", "b", 2, 0.4)]
    assert [(pair.label, pair.predicted) for pair in matrix.pairs(9)][2:] == [("c", "b")]


def test_names_are_not_read_as_formulas(tmp_path: Path, figures: list[Figure]) -> None:
    plot_confusion(tmp_path / "confusion.png", [[1, 0], [0, 1]], ["$x^", "cost in $"], "$\\frac{")
    assert [text.get_text() for text in figures[0].axes[0].get_yticklabels()] == ["$x^", "cost in $"]


def test_a_filmstrip_shows_frames_label_and_probabilities(tmp_path: Path, figures: list[Figure]) -> None:
    frames = np.arange(2 * 4 * 6 * 3, dtype=np.uint8).reshape(2, 4, 6, 3)  # (T, H, W, 3)
    strips = [Filmstrip("a", frames, ("b", "a"), (0.75, 0.25)), Filmstrip("b", frames[:1], ("b",), (1.0,))]
    plot_filmstrips(tmp_path / "demo.png", strips)
    first, second, bars, *_ = figures[0].axes
    assert np.array_equal(first.images[0].get_array(), frames[0, :, 1:5])  # type: ignore[arg-type]
    assert np.array_equal(second.images[0].get_array(), frames[1, :, 1:5])  # type: ignore[arg-type]
    assert [text.get_text() for text in first.texts] == ["a"]
    assert [text.get_text() for text in bars.texts] == ["b  75%", "a  25%"]
    assert [bar.get_width() for bar in bars.patches] == [0.75, 0.25]  # type: ignore[attr-defined]


def test_the_same_plot_is_the_same_file_and_names_vidpipe(tmp_path: Path) -> None:
    for name in ("one.png", "other.png"):
        plot_confusion(tmp_path / name, COUNTS, NAMES, "title")
    one, other = ((tmp_path / name).read_bytes() for name in ("one.png", "other.png"))
    assert one == other
    assert Image.open(tmp_path / "one.png").text["Software"].startswith("vidpipe ")  # type: ignore[attr-defined]
