"""Fixtures and settings of all tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.faces import facenet_pytorch, facenet_wheel
from tests.fixtures import half_tested, made

__all__ = ["facenet_pytorch", "facenet_wheel", "half_tested", "made"]

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"
LONG = (
    "test_readme",
    "test_decoding",
    "test_threads",
    "test_extract",
    "test_engines",
    "test_run_folder",
    "test_demo",
    "test_benches",
    "test_ray",
)
"""The slowest modules: they start first, so that the tests end on all cores at the same time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in LONG)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real clips, beside the checkout."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real clips in ../shared/data are not there")
    return SHARED_DATA


@pytest.fixture(autouse=True, scope="session")
def one_core() -> Iterator[None]:
    """Use one thread in torch, and one decoding process unless a test sets more: tests run in parallel on all cores."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vidpipe.execution.local.default_workers", lambda device, decoder: 1)
        yield
