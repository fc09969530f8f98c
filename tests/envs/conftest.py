"""A scripted reward source: latencies are a function of the point, failures are injected."""

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from schedenv.envs import rewards
from schedenv.envs.edit import EditEnv
from schedenv.hardware import Hardware
from schedenv.measure import Result, Status
from schedenv.measure.table_file import write_table
from schedenv.space import Point, Space
from schedenv.tasks import Task, resolve

from ..recorded_table import make_table
from .linear_model import LinearModel

SMALL = "gmm:1x16x16x16"
OTHER = "tbg:1x8x2x6"


class Script:
    """What the source was asked, and what it is to answer."""

    def __init__(self) -> None:
        self.asked: list[Point] = []
        self.closed = 0
        self.fails: Callable[[Point], bool] = lambda _: False

    @staticmethod
    def latency_s(point: Point) -> float:
        """Between 1 and 2 microseconds, the same for a point always."""
        return 1e-6 * (1.0 + zlib.crc32(str(point).encode()) / 2**32)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    """Register the reward source `scripted`; the script steers it."""
    script = Script()

    class ScriptedReward:
        def __init__(self, task: Task, hardware: Hardware) -> None:
            pass

        def baseline_s(self) -> float:
            return 4e-6

        def evaluate(self, point: Point, best_s: float | None) -> Result:
            script.asked.append(point)
            if script.fails(point):
                return Result(point=point, status=Status.BUILD_ERROR, reason="scripted")
            return Result(point=point, status=Status.OK, estimate_s=script.latency_s(point))

        def close(self) -> None:
            script.closed += 1

    monkeypatch.setitem(rewards.SOURCES, "scripted", ScriptedReward)
    return script


@pytest.fixture
def scripted_env(script: Script) -> Iterator[EditEnv]:
    """A small environment with scripted rewards."""
    env = EditEnv(SMALL, reward="scripted")
    yield env
    env.close()


@pytest.fixture(scope="module")
def measured_env() -> Iterator[gymnasium.Env[Any, Any]]:
    """A small registered environment on this machine."""
    env = gymnasium.make("schedenv/Edit-v0", task=SMALL, reward="measured", render_mode="ansi")
    yield env
    env.close()


@pytest.fixture(scope="session")
def tables(
    tmp_path_factory: pytest.TempPathFactory,
    hardware: Hardware,
    space_of: Callable[[str], Space],
) -> dict[str, str]:
    """Files of recorded tables with computed times, by task."""
    folder = tmp_path_factory.mktemp("tables")
    files = {}
    for spec, points in ((SMALL, 60), (OTHER, 40)):
        path = folder / f"{spec.partition(':')[0]}.parquet"
        write_table(make_table(resolve(spec), space_of(spec), hardware, points), path)
        files[spec] = str(path)
    return files


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a saved linear model."""
    folder = tmp_path_factory.mktemp("model")
    LinearModel.drawn(seed=0).save(folder)
    return str(folder)


@pytest.fixture
def linear_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders are read as linear models."""
    monkeypatch.setattr(rewards, "load_predictor", lambda folder: LinearModel.load(Path(folder)))


@pytest.fixture(params=["recorded", "predicted"])
def exact_source(
    request: pytest.FixtureRequest, tables: dict[str, str], model: str, linear_models: None
) -> dict[str, Any]:
    """Arguments for a deterministic reward source."""
    if request.param == "recorded":
        return {"reward": "recorded", "table": tables[SMALL]}
    return {"reward": "predicted", "task": SMALL, "model": model}
