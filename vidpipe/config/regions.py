"""Settings of `vidpipe regions train`."""

from dataclasses import dataclass

from vidpipe.config.setting import Config, setting

__all__ = ["DetectorConfig"]


@dataclass(frozen=True)
class DetectorConfig(Config):
    """Settings of `vidpipe regions train`."""

    epochs: int = setting(50, "Largest number of passes over the annotated frames.", low=1)
    batch_size: int = setting(8, "Frames in a batch.", low=1)
    learning_rate: float | None = setting(
        None,
        "Largest learning rate of AdamW; it rises at first, then falls to 0. [default: 1e-3 from random weights, 1e-4 "
        "from others]",
        low=0,
        above=True,
    )
    size: int | None = setting(
        None,
        "Side in pixels of the square into which frames are fitted, a multiple of 32. [default: the network's own]",
        low=32,
    )
    width: float = setting(
        1.0,
        "Share of the channels of yolov3, of the fcn networks, and of unet's decoder: 0.125 gives a small network.",
        low=0,
        above=True,
        high=1,
    )
    encoder: str = setting("resnet34", "unet: encoder, by its name in segmentation-models-pytorch.")
    weights: str = setting(
        "default",
        "Weights to begin from: `default` (the published ones; random where there are none), `random`, or a file. "
        "Layers for other classes begin at random.",
    )
    val_fraction: float = setting(
        0.2, "Share of the videos to validate on, without --val-annotations.", low=0, above=True, high=0.9
    )
    patience: int = setting(10, "Stop after this number of epochs without a better validation score.", low=1)
    device: str = setting("auto", "Device that trains the detector.", choices=("auto", "cpu", "cuda"))
    seed: int = setting(0, "Seed of the weights, of the order of frames and of their changes.", low=0)
