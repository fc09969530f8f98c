"""`network:FILE` as a suite: agents race, and policies are judged, on a network's own tasks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from schedenv.tasks import resolve_many

from .conftest import Command

pytestmark = pytest.mark.slow


def titles(small_network: Path) -> set[str]:
    return {task.name for task in resolve_many(f"network:{small_network}")}


def test_agents_race_on_a_network(schedenv: Command, small_network: Path, tmp_path: Path) -> None:
    out, suite = tmp_path / "race", f"network:{small_network}"
    words = ("compare", "--suite", suite, "--agents", "random,greedy", "--seeds", 1)
    done = schedenv(*words, "--trials", 8, "--out", out, "--json")
    assert done.code == 0, done.err
    summary = json.loads(done.out)
    tasks = len(titles(small_network))
    assert {entry["agent"]: entry["attempts"] for entry in summary["standings"]} == {
        "random": tasks, "greedy": tasks,
    }  # fmt: skip
    shown = schedenv("report", out)
    assert shown.code == 0, shown.err
    report = (out / "report.md").read_text()
    assert all(title in report for title in titles(small_network))


def test_a_policy_is_judged_on_a_network_that_it_never_saw(
    schedenv: Command, small_network: Path, tmp_path: Path
) -> None:
    settings = [
        word
        for setting in (
            "environments=8",
            "rollout_steps=8",
            "batch_size=32",
            "epochs=1",
            "width=16",
        )
        for word in ("--set", setting)
    ]
    policy = tmp_path / "policy"
    trained = schedenv("train", "--table", "gmm", "--steps", 64, *settings, "--out", policy)
    assert trained.code == 0, trained.err
    suite = f"network:{small_network}"
    done = schedenv(
        "evaluate", policy, "--suite", suite, "--seeds", 1, "--trials", 8, "--out",
        tmp_path / "judged", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    standings = json.loads(done.out)["standings"]
    assert {entry["agent"] for entry in standings} == {"trained", "untrained", "random"}
    assert {entry["attempts"] for entry in standings} == {len(titles(small_network))}
