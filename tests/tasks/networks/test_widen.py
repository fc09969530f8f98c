"""Convolutions are widened to whole vectors, and compute what they did."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from schedenv.tasks.networks.widen import widen_convolutions, widened

from ...small_networks import make_network

LANES = 16


@given(st.integers(1, 5000), st.sampled_from([4, 8, 16]))
def test_widened_channels_fill_vectors_or_stay(channels: int, lanes: int) -> None:
    wide = widened(channels, lanes)
    assert channels <= wide <= 1.1 * channels
    assert wide == channels or wide % lanes == 0
    assert widened(wide, lanes) == wide


@pytest.mark.parametrize(("channels", "wide"), [(1000, 1024), (64, 64), (63, 64), (17, 17)])
def test_four_vectors_at_a_time_if_that_is_cheap(channels: int, wide: int) -> None:
    assert widened(channels, LANES) == wide


def test_narrow_vectors_are_filled_with_fewer_channels() -> None:
    assert [widened(1000, lanes) for lanes in (4, 8, 16)] == [1000, 1000, 1024]
    assert [widened(62, lanes) for lanes in (4, 8, 16)] == [64, 64, 64]


def network(channels: int = 62) -> Any:
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(size=(channels, 3, 3, 3)).astype(np.float32),
        "b": rng.normal(size=(channels,)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["a"]),
        helper.make_node("Relu", ["a"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["y"]),
    ]
    return make_network(nodes, weights, [1, 3, 8, 8])


def run(model: Any, x: np.ndarray) -> np.ndarray:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (output,) = session.run(None, {"x": x})
    return np.asarray(output)


def test_the_network_computes_what_it_did() -> None:
    x = np.random.default_rng(1).normal(size=(1, 3, 8, 8)).astype(np.float32)
    expected = run(network(), x)
    wide = widen_convolutions(network(), LANES)
    onnx.checker.check_model(wide)
    assert [node.op_type for node in wide.graph.node] == [
        "Conv", "Relu", "Slice", "GlobalAveragePool",
    ]  # fmt: skip
    assert list(wide.graph.initializer[0].dims) == [64, 3, 3, 3]
    np.testing.assert_allclose(run(wide, x), expected, rtol=1e-5, atol=1e-6)


def test_a_network_that_needs_nothing_stays_as_it_is() -> None:
    before = network(channels=64).SerializeToString(deterministic=True)
    assert widen_convolutions(network(channels=64), LANES).SerializeToString(
        deterministic=True
    ) == (before)


def test_weights_used_twice_stay() -> None:
    model = network()
    model.graph.node.insert(0, helper.make_node("Conv", ["x", "w", "b"], ["z"]))
    assert "Slice" not in [node.op_type for node in widen_convolutions(model, LANES).graph.node]
