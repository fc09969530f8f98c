"""`network:FILE` as a suite: agents race, and policies are judged, on a network's own tasks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from schedenv.tasks import resolve_many

from ..small_networks import make_network
from .conftest import Command

pytestmark = pytest.mark.slow

SMALL = [
    word
    for setting in ("environments=8", "rollout_steps=8", "batch_size=32", "epochs=1", "width=16")
    for word in ("--set", setting)
]


@pytest.fixture
def suite(save: Callable[[Any], Path]) -> str:
    """Two tasks: a product with ReLU, and a softmax."""
    node = onnx.helper.make_node
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Relu", ["a"], ["b"]),
        node("Softmax", ["b"], ["y"]),
    ]
    weight = np.random.default_rng(0).normal(size=(48, 32)).astype(np.float32)
    return f"network:{save(make_network(nodes, {'w': weight}, [64, 48]))}"


def test_agents_race_on_a_network(schedenv: Command, suite: str, tmp_path: Path) -> None:
    out = tmp_path / "race"
    words = ("compare", "--suite", suite, "--agents", "random,greedy", "--seeds", 1)
    done = schedenv(*words, "--trials", 8, "--out", out, "--json")
    assert done.code == 0, done.err
    standings = json.loads(done.out)["standings"]
    assert {(entry["agent"], entry["attempts"]) for entry in standings} == {
        ("random", 2), ("greedy", 2),
    }  # fmt: skip
    shown = schedenv("report", out)
    assert shown.code == 0, shown.err
    report = (out / "report.md").read_text()
    assert all(task.name in report for task in resolve_many(suite))


def test_a_policy_is_judged_on_a_network_that_it_never_saw(
    schedenv: Command, suite: str, tmp_path: Path
) -> None:
    policy, judged = tmp_path / "policy", tmp_path / "judged"
    trained = schedenv("train", "--table", "gmm", "--steps", 64, *SMALL, "--out", policy)
    assert trained.code == 0, trained.err
    words = ("evaluate", policy, "--suite", suite, "--seeds", 1, "--trials", 8)
    done = schedenv(*words, "--out", judged, "--json")
    assert done.code == 0, done.err
    standings = json.loads(done.out)["standings"]
    assert {(entry["agent"], entry["attempts"]) for entry in standings} == {
        ("trained", 2), ("untrained", 2), ("random", 2),
    }  # fmt: skip
