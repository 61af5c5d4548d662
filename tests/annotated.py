"""Short videos of drawn figures, with their annotations."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from vidpipe.demo.annotations import write_demo_annotations
from vidpipe.demo.figures import ACTIONS
from vidpipe.demo.videos import write_demo_videos

__all__ = ["write_annotated_figures"]


def write_annotated_figures(
    folder: Path, *, seed: int = 0, num_groups: int = 3, actions: Sequence[str] = ("raise_arms",), every: int = 4
) -> Path:
    """Write `videos/` of 16 to 22 frames each, and `annotations.json` of every fourth frame; return the latter."""
    with pytest.MonkeyPatch.context() as patch:
        chosen = {name: ACTIONS[name] for name in actions}
        patch.setattr("vidpipe.demo.videos.NUM_FRAMES", (16, 22))
        patch.setattr("vidpipe.demo.annotations.EVERY", every)
        patch.setattr("vidpipe.demo.videos.ACTIONS", chosen)
        patch.setattr("vidpipe.demo.annotations.ACTIONS", chosen)
        write_demo_videos(folder / "videos", num_groups=num_groups, seed=seed)
        write_demo_annotations(folder / "annotations.json", num_groups=num_groups, seed=seed)
    return folder / "annotations.json"
