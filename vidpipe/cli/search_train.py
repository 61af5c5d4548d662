"""vidpipe search train"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vidpipe.cli.options import OUTPUT_PATH, LocalPath, label_options, setting_options, vidpipe_command
from vidpipe.config import EmbeddingConfig
from vidpipe.errors import count_of

if TYPE_CHECKING:
    from vidpipe.search.embedding import Embedding

__all__ = ["train"]


@vidpipe_command(name="train", short_help="Learn what makes videos of one label similar.")
@click.argument("stores", metavar="STORE…", nargs=-1, required=True, type=LocalPath())
@click.option("-o", "--output", "path", required=True, type=OUTPUT_PATH, help="Folder of the embedding.")
@click.option("--overwrite", is_flag=True, help="Replace the embedding in the folder.")
@label_options
@setting_options(EmbeddingConfig)
def train(stores: tuple[Path, ...], path: Path, overwrite: bool, official_split: str, **settings: Any) -> None:
    """Train an embedding: one vector for each video, near those of videos with the same label.

    `similar`, `duplicates` and `clusters` take it with --embedding. It is measured on folds over groups first: each
    video of a fold is a query among the videos of other groups. Then it is trained on all videos.

    \b
    vidpipe search train features --labels labels.csv -o embedding
    vidpipe search train features --labels labels.csv -o embedding --loss contrastive --dim 64
    """
    from vidpipe.api import train_embedding

    _print(train_embedding(stores, path, overwrite=overwrite, split=official_split, **settings), path)


def _print(embedding: "Embedding", path: Path) -> None:
    about = embedding.about
    videos, classes = count_of(about["num_videos"], "video"), count_of(len(about["class_names"]), "class")
    groups = count_of(about["num_groups"], "group")
    click.echo(f"{path}: {about['dim']} numbers a video, trained on {videos}, {classes}, {groups}")
    for name, title in (("learned", "learned"), ("not_learned", "not learned")):
        metrics = about["metrics"][name]
        if metrics is None:
            click.echo("too few groups to measure it", err=True)
            return
        click.echo(
            f"folds {title:<11} recall@1 {metrics['recall_at_1']:.3f}  recall@5 {metrics['recall_at_5']:.3f}  "
            f"mAP@R {metrics['map_at_r']:.3f}  {count_of(metrics['num_queries'], 'queried video')}"
        )
