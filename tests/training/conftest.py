"""Small requests on small tables with computed times."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schedenv.hardware import Hardware
from schedenv.measure.table_file import write_table
from schedenv.space import Space
from schedenv.tasks import resolve
from schedenv.training.sources import Sources
from schedenv.training.train import Outcome, Request, train

from ..recorded_table import make_table

LEARNED, HELD_OUT = "gmm:1x16x16x16", "tbg:1x8x2x6"

SMALL = ("environments=8", "rollout_steps=8", "batch_size=32", "epochs=1", "width=16")
"""Settings with which an iteration takes some hundredths of a second."""


Requests = Callable[..., Request]


@pytest.fixture(scope="session")
def tables(
    tmp_path_factory: pytest.TempPathFactory,
    hardware: Hardware,
    space_of: Callable[[str], Space],
) -> dict[str, str]:
    """Files of recorded tables, by task; every seventh point fails."""
    folder = tmp_path_factory.mktemp("tables")
    files = {}
    for spec in (LEARNED, HELD_OUT):
        path = folder / f"{spec.partition(':')[0]}.parquet"
        write_table(make_table(resolve(spec), space_of(spec), hardware), path)
        files[spec] = str(path)
    return files


@pytest.fixture(scope="session")
def request_of(tables: dict[str, str]) -> Requests:
    """Makes requests of a few iterations on one table, with the other one held out."""

    def request(out: Path, steps: int = 128, **changes: Any) -> Request:
        arguments: dict[str, Any] = {
            "agent": "ppo",
            "sources": Sources((tables[LEARNED],), (tables[HELD_OUT],)),
            "seconds": None,
            "steps": steps,
            "seed": 3,
            "out": out,
            "settings": SMALL,
            "max_steps": 6,
        }
        return Request(**{**arguments, **changes})

    return request


@pytest.fixture(scope="session")
def trained_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of `trained`; not to be changed."""
    return tmp_path_factory.mktemp("trained")


@pytest.fixture(scope="session")
def trained(request_of: Requests, trained_folder: Path) -> Outcome:
    """A finished run of 128 steps."""
    return train(request_of(trained_folder))
