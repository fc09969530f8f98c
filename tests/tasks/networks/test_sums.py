"""Sums as additions: the same outputs, from nodes that TVM fuses."""

from __future__ import annotations

import numpy as np
import pytest

from schedenv.tasks.networks.sums import chain_sums

from ...small_networks import make_network

onnx = pytest.importorskip("onnx")
reference = pytest.importorskip("onnx.reference")


@pytest.mark.parametrize(
    ("terms", "kinds"), [(1, ["Identity"]), (2, ["Add"]), (4, ["Add", "Add", "Add"])]
)
def test_a_sum_of_any_number_of_terms_keeps_its_value(terms: int, kinds: list[str]) -> None:
    rng = np.random.default_rng(terms)
    names = [f"t{number}" for number in range(1, terms)]
    weights = {name: rng.normal(size=(2, 3)).astype(np.float32) for name in names}
    nodes = [onnx.helper.make_node("Sum", ["x", *names], ["y"])]
    x = rng.normal(size=(2, 3)).astype(np.float32)
    before = make_network(nodes, weights, [2, 3])
    (expected,) = reference.ReferenceEvaluator(before).run(None, {"x": x})
    after = chain_sums(before)
    onnx.checker.check_model(after)
    (found,) = reference.ReferenceEvaluator(after).run(None, {"x": x})
    assert [node.op_type for node in after.graph.node] == kinds
    np.testing.assert_allclose(found, expected, rtol=1e-6)
