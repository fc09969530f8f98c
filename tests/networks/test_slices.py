"""The log of a network's slices: complete lines survive, a damaged file is said to be one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from schedenv.errors import OutputDirError
from schedenv.networks.scheduler import TaskState, round_robin
from schedenv.networks.slices import Search, Slice, TunedKernel, append_log, read_log

FIRST = Slice("conv", 1e-3, 8, 2.5, 2e-4)
SECOND = Slice("pool", 2e-3, 3, 1.0, None, finished=True)


def test_what_is_noted_is_read_back(tmp_path: Path) -> None:
    log = tmp_path / "slices.jsonl"
    assert read_log(log) == []
    for part in (FIRST, SECOND):
        append_log(log, part)
    assert read_log(log) == [FIRST, SECOND]


@pytest.mark.parametrize("kept", [1, 5, 20])
def test_a_line_cut_short_is_dropped_and_the_next_is_whole(tmp_path: Path, kept: int) -> None:
    log = tmp_path / "slices.jsonl"
    append_log(log, FIRST)
    whole = log.read_bytes()
    log.write_bytes(whole + whole[:kept])
    assert read_log(log) == [FIRST]
    append_log(log, SECOND)
    assert read_log(log) == [FIRST, SECOND]


def test_a_damaged_log_is_refused(tmp_path: Path) -> None:
    log = tmp_path / "slices.jsonl"
    log.write_text('{"task": 3}\n')
    with pytest.raises(OutputDirError, match=r"slices\.jsonl is damaged .*; delete it"):
        read_log(log)


class Scripted(Search):
    """A search whose large kernel takes 1000 us, 500, 250, ..., and its small one 2."""

    def _slice(self, name: str, bench: Any, seconds: float) -> Slice:
        state = self.kernels[name].state
        untuned_s = {"large": 1e-3, "small": 2e-6}[name]
        if not state.best_s and self._is_negligible(untuned_s):
            return Slice(name, untuned_s, 0, 1.0, None, negligible=True)
        return Slice(name, untuned_s, 8, 1.0, state.now_s / 2 if state.best_s else untuned_s)


def test_a_kernel_too_small_to_be_tuned_is_tuned_when_the_others_have_become_fast(
    tmp_path: Path,
) -> None:
    anything: Any = None
    kernels = {
        name: TunedKernel(anything, anything, anything, TaskState(1, 1e6, name, roofline_s))
        for name, roofline_s in (("large", 1e-4), ("small", 1e-6))
    }
    search = Scripted(
        anything, anything, anything, round_robin, "random", 0, tmp_path / "log", kernels
    )
    search.run(anything, 10.0, lambda part: None)
    tasks = [(part.task, part.trials) for part in read_log(tmp_path / "log")]
    # 0.2 % of 1000 us, then 0.4 % of 500 us; 0.8 % of 250 us is worth a slice.
    assert tasks[:5] == [("large", 8), ("small", 0), ("large", 8), ("large", 8), ("small", 8)]
