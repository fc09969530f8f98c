"""MetaSchedule's search over a whole network, ended by the clock."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from schedenv import hardware as hw
from schedenv import tvm_database, tvm_relax, tvm_tuning
from schedenv.tasks.networks.prepare import prepare

pytestmark = pytest.mark.slow
pytest.importorskip("xgboost")

FAILED_S = 1e9


def test_what_was_timed_before_the_end_is_committed(small_network: Path, tmp_path: Path) -> None:
    hardware = hw.detect()
    target = hw.target(hardware)
    graph = prepare(small_network).graph()
    timed: list[float] = []
    commits: list[int] = []

    def tried(status: str, seconds: tuple[float, ...]) -> None:
        if status == "ok":
            timed.append(sum(seconds) / len(seconds))

    listener = tvm_tuning.Listener(
        started=lambda: None,
        building=lambda _: None,
        running=lambda _: None,
        tried=tried,
        committed=lambda: commits.append(len(timed)),
        # In the first round of the tasks, which upstream commits after all of them.
        expired=lambda _: len(timed) >= 3,
    )
    tuner = tvm_tuning.Tuner(
        batch=2, warm_up=2, builders=hardware.cores, rules="llvm", beside_pool=True
    )
    tvm_tuning.tune_graph(graph, target, tuner, str(tmp_path), 0, listener)
    assert len(timed) == 3
    assert commits
    lines = (tmp_path / "database_tuning_record.json").read_text().splitlines()
    times = [times for _, (_, times, *_) in map(json.loads, lines)]
    kept = [sum(each) / len(each) for each in times]
    assert sorted(mean for mean in kept if mean < FAILED_S) == pytest.approx(sorted(timed))
    scheduled = tvm_database.apply_to_network(graph, str(tmp_path), target)
    assert tvm_relax.call_sequence(scheduled) == tvm_relax.call_sequence(graph)
    before, after = ({k.name: k.mod for k in tvm_relax.kernels(m)} for m in (graph, scheduled))
    assert any(after[name].script() != before[name].script() for name in before)
