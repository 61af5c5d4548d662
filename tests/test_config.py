from pathlib import Path

import pytest

from vidpipe.config import SECTIONS, ExtractConfig, Sampling, TrainConfig, load_section, save_config
from vidpipe.errors import ConfigError, UsageError

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.toml"))


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    extract, train = ExtractConfig(sampling="fps", fps=3, batch_size=8), TrainConfig(bidirectional=True, lr=0.01)
    save_config(tmp_path / "c.toml", extract=extract, train=train)
    assert ExtractConfig(**load_section(tmp_path / "c.toml", "extract")) == extract
    assert TrainConfig(**load_section(tmp_path / "c.toml", "train")) == train


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_config_that_ships_loads(path: Path) -> None:
    for section, config in SECTIONS.items():
        assert config(**load_section(path, section))


def test_there_are_configs() -> None:
    assert len(CONFIGS) >= 3


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[extract]\nbackbon = 'resnet50'", "unknown key 'backbon'; did you mean 'backbone'?"),
        ("[extrakt]\nbackbone = 'resnet50'", "unknown table 'extrakt'; did you mean 'extract'?"),
        ("backbone = 'resnet50'", "unknown table 'backbone'"),
        ("[train]\nepochs = 0", "epochs = 0: 1 or more is needed"),
        ("[train]\ndropout = 2", r"dropout = 2.0: 0 to 0.95 is needed"),
        ("[train]\nlr = 0.0", r"lr = 0.0: above 0 is needed"),
        ("[train]\nepochs = 'many'", "epochs = 'many': a int is needed"),
        ("[train]\nbidirectional = 1", "bidirectional = 1: a bool is needed"),
        ("[extract]\nsampling = 'unifrom'", "did you mean 'uniform'?"),
        ("[extract", "cannot be read as TOML"),
    ],
)
def test_a_wrong_config_file_is_told_with_its_name_and_the_remedy(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(ConfigError, match=told) as raised:
        load_section(tmp_path / "c.toml", "extract")
    assert "c.toml" in str(raised.value)


def test_a_sampling_gets_its_own_default() -> None:
    assert ExtractConfig().resolve_sampling() == Sampling("uniform", num_frames=16)
    assert ExtractConfig(sampling="scene").resolve_sampling() == Sampling("scene", num_frames=4)
    assert ExtractConfig(sampling="fps").resolve_sampling() == Sampling("fps", fps=2.0)


@pytest.mark.parametrize("settings", [{"sampling": "uniform", "fps": 2.0}, {"sampling": "fps", "num_frames": 4}])
def test_a_parameter_of_another_sampling_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="goes with"):
        ExtractConfig(**settings)  # type: ignore[arg-type]
