from collections.abc import Callable
from pathlib import Path

import pytest

from vidpipe.config import SECTIONS, ExtractConfig, LabelsConfig, Sampling, TrainConfig, load_section, save_config
from vidpipe.errors import ConfigError, UsageError

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.toml"))


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    extract, train = ExtractConfig(sampling="fps", fps=3, batch_size=8), TrainConfig(bidirectional=True, lr=0.01)
    save_config(tmp_path / "c.toml", extract=extract, train=train)
    assert ExtractConfig(**load_section(tmp_path / "c.toml", "extract")) == extract
    assert TrainConfig(**load_section(tmp_path / "c.toml", "train")) == train


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_config_that_ships_loads(path: Path) -> None:
    for section, configs in SECTIONS.items():
        for config in configs:
            assert config(**load_section(path, section, config=config))


def test_there_are_configs() -> None:
    assert len(CONFIGS) >= 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[extract]\nbackbon = 'resnet50'", "unknown key 'backbon'; did you mean 'backbone'?"),
        ("[extrakt]\nbackbone = 'resnet50'", "unknown table 'extrakt'; did you mean 'extract'?"),
        ("head = 'lstm'", r"'head' is outside a table; put it below \[train\]$"),
        (
            "device = 'cpu'",
            r"'device' is outside a table; put it below \[extract\] or \[train\] or \[evaluate\] or \[finetune\]$",
        ),
        ("had = 'lstm'", r"'had' is outside a table; the tables are extract, train, evaluate, predict, finetune"),
        ("train = 3", r"'train' is a table; write \[train\] on a line of its own"),
        ("[train]\nsampling = 'fps'", r"\[train\]: 'sampling' is not a setting of train; put it below \[extract\]"),
        ("[train]\nepochs = 0", "epochs = 0: 1 or more is needed"),
        ("[train]\ndropout = 2", r"dropout = 2.0: 0 to 0.95 is needed"),
        ("[train]\nlr = 0.0", r"lr = 0.0: above 0 is needed"),
        ("[train]\nepochs = 'many'", 'epochs = "many": write a whole number without quotes'),
        ("[train]\nepochs = '5'", 'epochs = "5": write a whole number without quotes'),
        ("[train]\nepochs = 5.0", "epochs = 5.0: write a whole number without quotes"),
        ("[train]\nlr = '0.1'", 'lr = "0.1": write a number without quotes'),
        ("[train]\nbidirectional = 1", "bidirectional = 1: write true or false"),
        ("[train]\nbidirectional = 'yes'", 'bidirectional = "yes": write true or false'),
        ("[train]\nhead = 3", "head = 3: write names in quotes with commas between them"),
        ("[train]\nlabels = ['a.csv', 'b.csv']", r'labels = \["a.csv", "b.csv"\]: write text in quotes$'),
        (
            "[train]\nmotion = [1, 2]",
            r'motion = .*: write names in quotes with commas between them, such as "raw,centred"',
        ),
        ("[train.epochs]\nmost = 3", "epochs = a table: write a whole number"),
        ("[extract]\nsampling = 'unifrom'", "did you mean 'uniform'?"),
        ("[extract]\nsampling = 'scene'\nfps = 2", r"\[extract\]: --fps goes with --sampling fps"),
        ("[extract]\nnum_frames = 3\nfps = 2", r"\[extract\]: --num-frames goes with"),
        ("[train]\nhead = 'mean'\nensemble = 3", r"\[train\]: --ensemble goes with neural heads"),
        ("[train]\nfolds = 3\nleave_one_group_out = true", r"\[train\]: .*two protocols"),
        ("[extract", r"not valid TOML: Expected .* \(at end of document\)"),
        ("[extract]\nfps = two", r"not valid TOML: Invalid value \(at line 2, column 7\)"),
    ],
)
def test_a_wrong_config_file_is_reported_with_its_name_and_the_remedy(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(ConfigError, match=message) as raised:
        load_section(tmp_path / "c.toml", "extract")
    assert "c.toml" in str(raised.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such file; --config names a TOML file"),
        (lambda path: path.mkdir(), "a folder; --config names a TOML file"),
        (lambda path: path.write_bytes(b"[train]\nhead = '\xe9'"), "line 2: not UTF-8 text"),
        (lambda path: path.symlink_to(path), "cannot be read"),
    ],
)
def test_a_config_that_is_no_text_file_is_reported(
    tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    make(tmp_path / "c.toml")
    with pytest.raises(ConfigError, match=message) as raised:
        load_section(tmp_path / "c.toml", "train")
    assert "Errno" not in str(raised.value)
    assert raised.value.exit_code == 2


def test_a_list_of_names_may_be_written_as_one(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[train]\nmotion = ['raw', 'difference']\n")
    assert load_section(tmp_path / "c.toml", "train") == {"motion": "raw,difference"}


def test_a_config_saved_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_bytes("\ufeff[train]\nepochs = 3\n".encode())
    assert load_section(tmp_path / "c.toml", "train") == {"epochs": 3}


def test_labels_stand_beside_the_settings_of_training(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[train]\nepochs = 3\nlabels = 'l.csv'\ngroup_by = 'camera'\nsplit = '2'\n")
    assert load_section(tmp_path / "c.toml", "train", config=TrainConfig) == {"epochs": 3}
    labels = LabelsConfig(**load_section(tmp_path / "c.toml", "train", config=LabelsConfig))
    assert labels == LabelsConfig(labels="l.csv", group_by="camera", split="2")


def test_a_sampling_gets_its_own_default() -> None:
    assert ExtractConfig().resolve_sampling() == Sampling("uniform", num_frames=16)
    assert ExtractConfig(sampling="scene").resolve_sampling() == Sampling("scene", num_frames=4)
    assert ExtractConfig(sampling="fps").resolve_sampling() == Sampling("fps", fps=2.0)


@pytest.mark.parametrize("settings", [{"sampling": "uniform", "fps": 2.0}, {"sampling": "fps", "num_frames": 4}])
def test_a_parameter_of_another_sampling_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="goes with"):
        ExtractConfig(**settings)  # type: ignore[arg-type]
