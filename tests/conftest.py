"""What all tests share: this machine, a tiny task and its space, spaces by name."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from schedenv import hardware as hw
from schedenv.space import Space
from schedenv.tasks import Task, resolve
from schedenv.tuning import heats

# No test asserts a time: on a shared machine any line may take a second.
settings.register_profile("schedenv", deadline=None)
settings.load_profile("schedenv")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests away from the user's cache; the machine is calibrated at most once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCHEDENV_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def hardware() -> hw.Hardware:
    return hw.detect()


@pytest.fixture(scope="session")
def space_of(hardware: hw.Hardware) -> Callable[[str], Space]:
    """The space of a TASK string, made once."""
    return functools.cache(lambda spec: Space(resolve(spec).mod, hardware))


@pytest.fixture(scope="module")
def short_finals() -> Iterator[None]:
    """Finals in two processes instead of seven, where they are not what is tested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heats, "CHOOSING", 1)
        patch.setattr(heats, "REPORTING", 1)
        yield


@pytest.fixture(scope="session")
def tiny_task() -> Task:
    return resolve("gmm:1x32x32x32")


@pytest.fixture(scope="session")
def tiny_space(space_of: Callable[[str], Space]) -> Space:
    return space_of("gmm:1x32x32x32")


@pytest.fixture(scope="session")
def small_network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX file with three convolutions; the test is skipped where onnx is not installed."""
    onnx = pytest.importorskip("onnx")
    from .small_networks import convolutional

    path = tmp_path_factory.mktemp("network") / "small.onnx"
    onnx.save(convolutional([1, 3, 16, 16]), str(path))
    return path


@pytest.fixture
def save(tmp_path: Path) -> Callable[[Any], Path]:
    """Writes an ONNX model."""
    onnx = pytest.importorskip("onnx")

    def write(model: Any) -> Path:
        path = tmp_path / "network.onnx"
        onnx.save(model, str(path))
        return path

    return write
