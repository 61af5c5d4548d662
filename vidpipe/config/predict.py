"""Settings of `vidpipe predict`."""

from dataclasses import dataclass

from vidpipe.config.setting import Config, setting

__all__ = ["PredictConfig"]


@dataclass(frozen=True)
class PredictConfig(Config):
    """Settings of `vidpipe predict`."""

    top: int | None = setting(
        None,
        "Number of most probable classes to show for each video; csv gets columns label_1,probability_1 and so on. "
        "[default: 5; csv: no ranking]",
        low=1,
    )
    min_confidence: float = setting(
        0.0, "Answer `none of these` if the most probable class has a lower probability.", low=0, high=1
    )
    uncertain: int | None = setting(
        None,
        "Print only the N least certain videos, least certain first, to correct their labels and train on them. "
        "Format csv, unless --format is given.",
        low=1,
    )
    store: str | None = setting(
        None,
        "Use features from this store where it has them; with --timeline or --executor ray, make it and keep the "
        "others in it.",
        is_path=True,
    )
    format: str = setting("table", "Output format; json: one JSON object a line.", choices=("table", "json", "csv"))
