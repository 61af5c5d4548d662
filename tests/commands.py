"""Commands run in this process, and options that keep them quick."""

from click.testing import CliRunner, Result

from vidpipe.cli import main


def run(*arguments: object) -> Result:
    """Run `vidpipe` with these arguments."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


LITE0 = ("--backbone", "efficientnet_lite0", "--device", "cpu", "--workers", "1")
LENET = ("--backbone", "lenet5", "--device", "cpu", "--workers", "1")
