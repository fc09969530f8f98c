"""Small requests on shipped tables, which need no TVM."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schedenv.training.sources import Sources
from schedenv.training.train import Outcome, Request, train

SMALL = ("environments=8", "rollout_steps=8", "batch_size=32", "epochs=1", "width=16")
"""Settings with which an iteration takes some hundredths of a second."""


def request(out: Path, steps: int = 128, **changes: Any) -> Request:
    """A request of a few iterations on one table, with another held out."""
    arguments: dict[str, Any] = {
        "agent": "ppo",
        "sources": Sources(("gmm",), ("c1d",)),
        "seconds": None,
        "steps": steps,
        "seed": 3,
        "out": out,
        "settings": SMALL,
        "max_steps": 6,
    }
    return Request(**{**arguments, **changes})


@pytest.fixture(name="request_of")
def request_of_fixture() -> Callable[..., Request]:
    """The function `request`, for test modules."""
    return request


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A finished run of 128 steps; `trained_folder` has its checkpoint."""
    return train(request(tmp_path_factory.getbasetemp() / "trained"))


@pytest.fixture(scope="session")
def trained_folder(trained: Outcome, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of `trained`; not to be changed."""
    return tmp_path_factory.getbasetemp() / "trained"
