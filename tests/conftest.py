"""What all tests share: where the real clips lie, and a small store to train on."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.fixtures import half_tested, made

__all__ = ["half_tested", "made"]

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"
LONG = ("test_readme", "test_demo", "test_benches", "test_engines", "test_table")
"""Modules that take longest: they begin first, so that no core waits for one of them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in LONG)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real clips, beside the checkout."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real clips of ../shared/data are not here")
    return SHARED_DATA


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Tests run side by side, one a core: so they, and the trainings in them that ask for no number, take a thread."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vidpipe.training.threads.MAX_THREADS", 1)
        yield
