"""Trainings that are killed: SIGKILL at random moments of real `vidpipe train` processes.

    python -m benchmarks.run_kills 60

Two trainings with different settings replace each other's run with --overwrite, or continue with --resume. A quarter
of the kills each wait until the new run is being written, until it is complete, or until it is in place. Half of the
trainings replace the folder in one step, half in two, as on a file system that cannot exchange folders. After each
kill: all files of the run are, byte for byte, those of one of the two trainings without a kill; `info`, `report` and
`predict` read it; and --resume leads to the same model as a training without a kill.
"""

import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from click.testing import CliRunner

from tests.stores import make_sequence, make_store
from vidpipe.cli import main
from vidpipe.runs import run_folder
from vidpipe.runs.run import Run
from vidpipe.runs.run_folder import find_training_folder
from vidpipe.training import checkpoints

SHARED = ("--device", "cpu", "--threads", "1", "--epochs", "8", "--hidden-size", "4", "--quiet")
SETTINGS = {
    "lstm": (*SHARED, "--head", "lstm", "--motion", "raw", "--schedule", "cosine"),
    "gru": (*SHARED, "--head", "gru", "--motion", "centred", "--test-fraction", "0", "--no-refit", "--folds", "2"),
    "default": SHARED,
}
"""One has a test set and a refit, one has folds, and one several members: each writes files that others do not."""
NUM_VIDEOS, DIM = 24, 4
LATEST = 0.95
"""Of the time that a whole training takes."""
FOREVER_SECONDS = 120.0
MOMENTS = ("any", "writing", "whole", "in place")


@dataclass
class Outcome:
    """Counts so far, and what was wrong."""

    num_kills: int = 0
    num_replaced: int = 0
    """Trainings that came to their end."""
    num_resumed: int = 0
    """Of these, by --resume."""
    wrong: list[str] = field(default_factory=list)


def kill_often(count: int, seed: int, folder: Path) -> Outcome:
    """Kill `count` trainings, and check the run after each."""
    dice, bench, outcome = random.Random(seed), _Bench(folder), Outcome()
    wanted, resumes = "lstm", False
    while outcome.num_kills < count:
        ended = bench.train(wanted, dice, outcome, resumes=resumes)
        found = bench.examine(outcome)
        if ended:
            outcome.num_replaced += 1
            outcome.num_resumed += resumes
            outcome.wrong += [f"{wanted} came to its end, and the run is {found}"] * (found != wanted)
            wanted, resumes = ("gru" if wanted == "lstm" else "lstm"), False
        else:
            outcome.num_kills += 1
            resumes = bool(dice.getrandbits(1))
        print(f"{outcome.num_kills} kills, wrong: {outcome.wrong}", file=sys.stderr)
    if not bench.train(wanted, None, outcome, resumes=True) or bench.examine(outcome) != wanted:
        outcome.wrong.append("the last --resume did not lead to its run")
    outcome.wrong += [f"left behind: {name}" for name in os.listdir(folder / "runs") if name != "run"]
    return outcome


class _Bench:
    """A store, a run's folder, and the output of two trainings without a kill."""

    def __init__(self, folder: Path) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["vidpipe.stages.train", "sklearn.linear_model"])
        self._folder, self._run = folder, folder / "runs" / "run"
        self._training = find_training_folder(self._run)
        _write_store(folder / "store", [f"{label}/{number}.mp4" for number in range(NUM_VIDEOS) for label in "ab"])
        (folder / "new.mp4").write_bytes(b"a video")
        _write_store(folder / "new", ["new.mp4"], folder / "new.mp4")
        self._had_run = False
        self._seconds: dict[str, float] = {}
        self._expected: dict[str, dict[str, str]] = {}
        for name in SETTINGS:
            started = time.monotonic()
            self._wait(self._start(name, folder / name, exchanges=True, flags=()))
            self._seconds[name] = time.monotonic() - started
            self._expected[name] = dict(_digests(folder / name))

    def train(self, name: str, dice: random.Random | None, outcome: Outcome, *, resumes: bool) -> bool:
        """Train, and kill it if `dice` are given; return whether the training finished before."""
        exchanges = dice is None or bool(dice.getrandbits(1))
        before = _inode(self._run)
        resumes = resumes and self._training.exists()  # else it was killed before it began
        process = self._start(name, self._run, exchanges=exchanges, flags=("--resume" if resumes else "--overwrite",))
        if dice is not None:
            self._await_moment(dice, name, before, process.is_alive)
            if process.is_alive():
                process.kill()
                process.join()
                return False
        self._wait(process)
        is_done = resumes and process.exitcode == 1 and dict(_digests(self._run)) == self._expected[name]
        if process.exitcode and not is_done:  # --resume of what is done ends with 1
            log = (self._folder / "log.txt").read_text(encoding="utf-8")
            outcome.wrong.append(f"the training ended with exit code {process.exitcode}: {log.splitlines()[-1:]}")
        return True

    def examine(self, outcome: Outcome) -> str | None:
        """Return which of the two runs is in the folder, or None."""
        if not self._run.exists() and not (self._training / "new").exists():
            outcome.wrong += ["the run is gone"] * self._had_run
            return None
        self._had_run = True
        shown = CliRunner().invoke(main, ["info", str(self._run), "--format", "json"])
        had_report = (self._run / "report.html").exists()
        found = [name for name, expected in self._expected.items() if dict(_digests(self._run)) == expected]
        if shown.exit_code or len(found) != 1 or Run.open(self._run).config.head != found[0]:
            outcome.wrong.append(f"a mixture: {sorted(os.listdir(self._run))}; info: {shown.output}")
            return "a mixture"
        if had_report and found[0] not in (self._run / "report.html").read_text(encoding="utf-8"):
            outcome.wrong.append("the older run's report is beside the new run")
        for arguments in (
            ["report", str(self._run)],
            ["predict", str(self._run), str(self._folder / "new.mp4"), "--store", str(self._folder / "new")],
        ):
            result = CliRunner().invoke(main, arguments)
            outcome.wrong += [f"{arguments[0]}: {result.output}"] * (result.exit_code != 0)
        return found[0]

    def _start(
        self, name: str, run: Path, *, exchanges: bool, flags: tuple[str, ...]
    ) -> multiprocessing.process.BaseProcess:
        arguments = ["train", str(self._folder / "store"), "-o", str(run), *SETTINGS[name], *flags]
        process = self._context.Process(target=_train, args=(arguments, self._folder / "log.txt", exchanges))
        process.start()
        return process

    def _wait(self, process: multiprocessing.process.BaseProcess) -> None:
        process.join(FOREVER_SECONDS)
        if process.is_alive():
            process.kill()
            raise TimeoutError(f"a training takes more than {FOREVER_SECONDS:g} s")

    def _await_moment(self, dice: random.Random, name: str, before: int | None, is_alive: Callable[[], bool]) -> None:
        moment, deadline = dice.choice(MOMENTS), time.monotonic() + dice.uniform(0, LATEST * self._seconds[name])
        moments: dict[str, Callable[[], bool]] = {
            "any": lambda: time.monotonic() > deadline,
            "writing": lambda: (self._training / "writing").exists(),
            "whole": lambda: (self._training / "new").exists() or (self._training / "writing" / "run.json").exists(),
            "in place": lambda: _inode(self._run) not in (before, None) or (self._training / "old").exists(),
        }
        while is_alive() and not moments[moment]():
            pass
        time.sleep(dice.choice((0.0, dice.uniform(0, 0.002), dice.uniform(0, 0.3))))


def _train(arguments: list[str], log: Path, exchanges: bool) -> None:
    """Run `vidpipe` with these arguments, with a checkpoint after every epoch."""
    checkpoints.SECONDS_BETWEEN = 0.0
    if not exchanges:
        run_folder._exchange = _cannot_exchange
    with log.open("a", encoding="utf-8") as stream, redirect_stdout(stream), redirect_stderr(stream):
        main(arguments)


def _cannot_exchange(one: Path, other: Path) -> bool:
    return False


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _digests(run: Path) -> Iterator[tuple[str, str]]:
    for path in run.iterdir():
        if path.name != "report.html":
            yield path.name, sha256(path.read_bytes()).hexdigest()


def _write_store(path: Path, video_ids: list[str], video: Path | None = None) -> None:
    """Write noise with a weak signal of the label."""
    sequences = [make_sequence(video_id, 6, DIM, seed=number, path=video) for number, video_id in enumerate(video_ids)]
    for sequence in sequences:
        sequence.features[:, 0] += sequence.video_id.startswith("a")
    make_store(path, sequences)


def run(count: int = 60, seed: int = 0) -> str:
    """Measure, and return a section of RESULTS.md."""
    with tempfile.TemporaryDirectory() as folder:
        outcome = kill_often(count, seed, Path(folder))
    problems = "\n".join(f"- {wrong}" for wrong in outcome.wrong) or "Nothing was wrong."
    return (
        "## Trainings killed at random moments (`benchmarks/run_kills.py`)\n\n"
        f"{outcome.num_kills} runs of `vidpipe train` were killed (seed {seed}); {outcome.num_replaced} finished, "
        f"{outcome.num_resumed} of them with --resume. {problems}"
    )


if __name__ == "__main__":
    print(run(*map(int, sys.argv[1:])))
