"""The log of a network's slices: complete lines survive, a damaged file is said to be one."""

from __future__ import annotations

from pathlib import Path

import pytest

from schedenv.errors import OutputDirError
from schedenv.networks.slices import Slice, append_log, read_log

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
