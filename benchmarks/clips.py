"""The videos that the benchmarks read: the real clips beside the checkout, or else the demo's."""

from pathlib import Path

from vidpipe.demo.videos import write_demo_videos

SHARED_CLIPS = Path(__file__).parents[2] / "shared" / "data" / "clips"


def labelled_sets(folder: Path) -> dict[str, Path]:
    """Labels files by name of the set; the videos lie beside each."""
    if SHARED_CLIPS.is_dir():
        return {name: SHARED_CLIPS / name / "labels.csv" for name in ("fight", "interaction")}
    return {"demo": write_demo_videos(folder / "demo")}
