"""From a file to a prepared network: kernels as tasks, in a process with limits."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from schedenv.errors import InputError, NetworkFileError, UnknownNameError
from schedenv.tasks import resolve, resolve_many
from schedenv.tasks.networks.network import VERSION, Network, family_of
from schedenv.tasks.networks.prepare import _digest, prepare

from ...small_networks import chain, convolutional, make_network


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("SCHEDENV_CACHE_DIR", str(folder))
        yield folder


@pytest.fixture(scope="module")
def prepared(small_network: Path, cache: Path) -> Network:
    return prepare(small_network)


def test_equal_kernels_are_one_task_with_a_weight(prepared: Network) -> None:
    calls = {entry.name: entry.calls for entry in prepared.description.kernels}
    # The third convolution has the residual sum fused into it, and so is another program.
    assert sum("conv2d" in name for name in calls) == 3
    assert prepared.description.channels_last


def test_batch_norm_and_relu_are_folded_into_the_convolution(prepared: Network) -> None:
    families = [entry.family for entry in prepared.description.kernels]
    assert not any("norm" in family or "sqrt" in family for family in families)


def test_tasks_count_what_they_cost(prepared: Network) -> None:
    entry = next(e for e in prepared.entries.values() if "conv2d1" in e.name)
    assert entry.flops >= 2 * 16 * 16 * 32 * 32 * 9
    assert entry.bytes == prepared.task(entry.name).bytes > 4 * 32 * 32 * 9


def test_tasks_know_which_arguments_are_weights(prepared: Network) -> None:
    for name, entry in prepared.entries.items():
        task = prepared.task(name)
        assert task.weights == entry.weights
        assert ("conv2d" in entry.family) == (1 in task.weights)
        assert 0 not in task.weights
    sizes = [entry.calls * entry.weight_bytes for entry in prepared.description.kernels]
    assert task.span_bytes == sum(sizes) > 0


def test_a_network_is_a_suite(prepared: Network, small_network: Path) -> None:
    tasks = resolve_many(f"network:{small_network}")
    assert [task.name for task in tasks] == [f"small/{name}" for name in prepared.entries]
    again = resolve(tasks[0].spec)
    assert again == tasks[0]
    assert resolve(f"network:{small_network}/{next(iter(prepared.entries))}") == tasks[0]


def test_unknown_kernels(small_network: Path, prepared: Network) -> None:
    with pytest.raises(UnknownNameError, match="unknown kernel of small 'conv'"):
        resolve(f"network:{small_network}/conv")
    with pytest.raises(InputError, match="is a network, and one task is expected"):
        resolve(str(small_network))


def test_a_file_is_prepared_once(prepared: Network, small_network: Path) -> None:
    marker = prepared.folder / "marker"
    marker.touch()
    assert prepare(small_network).folder == prepared.folder
    assert marker.exists()


def test_only_files_that_a_network_names_make_another_one_of_it(tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    path.write_bytes(b"weights lie in weights.bin")
    digest = partial(_digest, path, {"shapes": {}, "channels_last": True, "lanes": 16})
    before = digest()
    (tmp_path / "tune.log").write_text("a log grows beside it")
    assert digest() == before
    (tmp_path / "weights.bin").write_bytes(b"1")
    assert digest() != before


def test_another_version_is_refused(prepared: Network, tmp_path: Path) -> None:
    text = json.loads((prepared.folder / "network.json").read_text())
    (tmp_path / "network.json").write_text(json.dumps({**text, "version": 99}))
    with pytest.raises(NetworkFileError, match=f"format 99, expected {VERSION}"):
        Network.read(tmp_path)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("fused_conv2d12_add5_relu5", "conv2d_add_relu"),
        ("max_pool2d1", "max_pool2d"),
        ("fused_transpose1_reshape", "transpose_reshape"),
        ("fused_conv2d_add_relu", "conv2d_add_relu"),
        ("softmax", "softmax"),
        ("matmul3", "matmul"),
    ],
)
def test_families_are_names_without_numbers(name: str, family: str) -> None:
    assert family_of(name) == family


@pytest.mark.slow
def test_nothing_half_written_is_left(save: Callable[[Any], Path], cache: Path) -> None:
    path = save(make_network([helper.make_node("Frobnicate", ["x"], ["y"])], {}, [4]))
    before = sorted((cache / "networks").glob("*"))
    with pytest.raises(NetworkFileError, match="Frobnicate"):
        prepare(path)
    assert sorted((cache / "networks").glob("*")) == before


@pytest.mark.slow
def test_an_import_without_end_is_ended(save: Callable[[Any], Path], cache: Path) -> None:
    path = save(chain(9_000))
    before = sorted((cache / "networks").glob("*"))
    with pytest.raises(NetworkFileError) as caught:
        prepare(path, timeout_s=2.0)
    assert str(caught.value) == f"{path} was not imported within 2 s; export a smaller network"
    assert sorted((cache / "networks").glob("*")) == before


@pytest.mark.slow
def test_a_network_that_does_not_fit_in_its_share_of_memory(save: Callable[[Any], Path]) -> None:
    """Its file is small: the constant is made while constants are folded."""
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["c"]),
        helper.make_node("Exp", ["c"], ["e"]),
        helper.make_node("MatMul", ["x", "e"], ["y"]),
    ]
    shape = np.asarray([1 << 16, 1 << 15], np.int64)
    path = save(make_network(nodes, {"shape": shape}, [1, 1 << 16]))
    with pytest.raises(NetworkFileError) as caught:
        prepare(path, memory_bytes=6_000_000_000)
    assert str(caught.value) == (
        f"{path} does not fit in the 6 GB that its import may take; export a smaller network or "
        "import it on a larger machine"
    )


@pytest.mark.slow
def test_shapes_fill_open_extents(tmp_path: Path) -> None:
    path = tmp_path / "open.onnx"
    onnx.save(convolutional(["batch", 3, 16, 16]), str(path))
    network = prepare(path, {"x": (2, 3, 16, 16)})
    assert network.description.inputs[0].shape == (2, 3, 16, 16)


def test_what_is_computed_before_one_of_equal_kernels_is_no_weight(
    save: Callable[[Any], Path],
) -> None:
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(8, 8)).astype(np.float32)}
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "w"], ["a"]),
        onnx.helper.make_node("MatMul", ["x", "a"], ["y"]),
    ]
    (entry,) = prepare(save(make_network(nodes, weights, [8, 8]))).description.kernels
    assert entry.calls == 2
    assert entry.weights == ()
