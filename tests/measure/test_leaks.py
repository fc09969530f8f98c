"""After a thousand trials nothing is left over that was not there before."""

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest

from schedenv.hardware import Hardware
from schedenv.measure import Status
from schedenv.measure.local import Limits, LocalMeasurer
from schedenv.space import Space
from schedenv.tasks import Task

TRIALS = 1000


def belongings(scratch: Path) -> dict[str, int]:
    """What a measurer may leak."""
    me = psutil.Process()
    return {
        "files": len(list(scratch.rglob("*"))),
        "descriptors": me.num_fds(),
        "children": len(me.children(recursive=True)),
        "threads": me.num_threads(),
    }


@pytest.mark.slow
def test_a_thousand_trials_leave_no_file_descriptor_process_or_memory_behind(
    tiny_task: Task,
    hardware: Hardware,
    tiny_space: Space,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What other programs leave in the system's directory is not ours.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rng = np.random.default_rng(0)
    limits = Limits(builds_per_worker=100)
    before = {path.name for path in Path(tempfile.gettempdir()).glob("schedenv-*/")}
    counts: Counter[Status] = Counter()
    with LocalMeasurer(tiny_task, hardware, limits=limits) as measurer:
        measurer.measure([tiny_space.sample(rng) for _ in range(16)])
        early, memory = belongings(measurer._scratch), workers_bytes()
        while sum(counts.values()) < TRIALS:
            results = measurer.measure([tiny_space.sample(rng) for _ in range(50)])
            counts.update(result.status for result in results if not result.repeated)
        late = belongings(measurer._scratch)
        grown_bytes = workers_bytes() - memory
    print(f"{counts.total()} trials: {dict(counts)}; grown by {grown_bytes / 2**20:.0f} MiB")
    assert counts[Status.OK] > TRIALS * 0.9
    assert late == early
    # A worker grows with every kernel that LLVM has emitted, until it is replaced.
    assert grown_bytes < 1 << 30
    assert psutil.Process().children(recursive=True) == []
    assert {path.name for path in Path(tempfile.gettempdir()).glob("schedenv-*/")} <= before


def workers_bytes() -> int:
    """Memory of all descendants, pages shared with the nursery counted once each."""
    return sum(child.memory_info().rss for child in psutil.Process().children(recursive=True))
