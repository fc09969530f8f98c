"""The local measurer survives what candidates, machines and parents do to it."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from schedenv.errors import WorkerError
from schedenv.hardware import Hardware
from schedenv.measure import Result, Status, nursery
from schedenv.measure.local import Limits, LocalMeasurer
from schedenv.space import UNTUNED, Space
from schedenv.tasks import Task

from .support import family_of, is_running, points_of, points_of_equal_code, wait_until

SHORT = Limits(build_s=3.0, build_floor_s=3.0, run_floor_s=3.0, run_first_s=3.0)
"""Deadlines that a good candidate of the tiny task keeps a hundred times over."""


class Faulty:
    """A measurer whose workers misbehave at the points it is told."""

    def __init__(self, measurer: LocalMeasurer, file: Path, space: Space) -> None:
        self.measurer, self.file = measurer, file
        self._rng = np.random.default_rng(7)
        self._space = space

    def measure(self, fault: str, others: int = 3) -> tuple[Result, list[Result]]:
        """The results of a point with the fault, and of good points around it."""
        points = [self._space.sample(self._rng) for _ in range(others + 1)]
        self.file.with_suffix(".once").unlink(missing_ok=True)
        self.file.write_text(json.dumps({str(points[1]): fault}))
        first, bad, *rest = self.measurer.measure(points)
        assert [first.point, bad.point, *(r.point for r in rest)] == points
        return bad, [first, *rest]


@pytest.fixture(scope="module")
def faults_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    file = tmp_path_factory.mktemp("faults") / "faults.json"
    file.write_text("{}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAULTS", str(file))
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        patch.setattr(nursery, "WORKER_MODULE", "faulty_worker")
        yield file


@pytest.fixture(scope="module")
def faulty(
    faults_file: Path, tiny_task: Task, hardware: Hardware, tiny_space: Space
) -> Iterator[Faulty]:
    """One measurer for all faults: surviving one must not spoil the next."""
    before = family_of(os.getpid())
    with LocalMeasurer(tiny_task, hardware, workers=2, limits=SHORT) as measurer:
        scratch = measurer._scratch
        yield Faulty(measurer, faults_file, tiny_space)
    assert not scratch.exists()
    assert not any(is_running(pid) for pid in family_of(os.getpid()) - before)


@pytest.mark.parametrize(
    ("fault", "status", "reason"),
    [
        ("build hangs", Status.BUILD_TIMEOUT, "not compiled after 3 s"),
        pytest.param(
            "build stops", Status.BUILD_TIMEOUT, "not compiled after 3 s", marks=pytest.mark.slow
        ),
        ("build segfaults", Status.CRASH, "worker died of SIGSEGV"),
        pytest.param(
            "build aborts",
            Status.CRASH,
            "worker died of SIGABRT: the last words",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "build exits", Status.CRASH, "worker exited with code 7", marks=pytest.mark.slow
        ),
        ("build raises", Status.BUILD_ERROR, "no such luck"),
        pytest.param(
            "build is killed", Status.CRASH, "worker died of SIGKILL", marks=pytest.mark.slow
        ),
        ("run spins", Status.RUN_TIMEOUT, "not verified and timed after 3 s"),
        pytest.param(
            "run stops",
            Status.RUN_TIMEOUT,
            "not verified and timed after 3 s",
            marks=pytest.mark.slow,
        ),
        ("run segfaults", Status.CRASH, "worker died of SIGSEGV"),
        pytest.param(
            "run exits", Status.CRASH, "worker exited with code 7", marks=pytest.mark.slow
        ),
        pytest.param("run raises", Status.RUN_ERROR, "no such luck", marks=pytest.mark.slow),
        pytest.param(
            "run is killed", Status.CRASH, "worker died of SIGKILL", marks=pytest.mark.slow
        ),
    ],
)
def test_a_fault_becomes_a_status_and_every_other_candidate_is_measured(
    fault: str, status: Status, reason: str, faulty: Faulty
) -> None:
    bad, others = faulty.measure(fault)
    assert bad.status is status
    assert bad.reason is not None
    # A crash is followed by the last lines of standard error, here TVM's stack trace.
    assert bad.reason.startswith(reason)
    assert bad.estimate_s is None
    # Agents that weigh what a candidate costs must not take a hopeless one for the cheapest.
    assert ("after 3 s" in reason) == (bad.phases.total_s >= 3)
    assert [result.status for result in others] == [Status.OK] * 3


def test_a_first_build_that_hangs_is_given_up_once_others_show_what_is_usual(
    tiny_task: Task, hardware: Hardware, faults_file: Path, tiny_space: Space
) -> None:
    limits = Limits(build_first_s=60.0, build_floor_s=1.0, build_factor=0.0)
    with LocalMeasurer(tiny_task, hardware, workers=2, limits=limits) as measurer:
        bad, others = Faulty(measurer, faults_file, tiny_space).measure("build hangs")
    assert (bad.status, bad.reason) == (Status.BUILD_TIMEOUT, "not compiled after 1 s")
    assert [result.status for result in others] == [Status.OK] * 3


@pytest.mark.parametrize("phase", ["build", pytest.param("run", marks=pytest.mark.slow)])
def test_a_candidate_that_takes_all_memory_is_an_error_and_the_machine_lives(
    phase: str, faulty: Faulty
) -> None:
    bad, others = faulty.measure(f"{phase} takes all memory")
    assert bad.status in {Status.BUILD_ERROR, Status.RUN_ERROR, Status.CRASH}
    assert bad.status is not {"build": Status.RUN_ERROR, "run": Status.BUILD_ERROR}[phase]
    assert bad.reason
    assert [result.status for result in others] == [Status.OK] * 3


@pytest.mark.parametrize("phase", [pytest.param("build", marks=pytest.mark.slow), "run"])
def test_a_worker_killed_from_outside_costs_its_candidate_nothing(
    phase: str, faulty: Faulty
) -> None:
    bad, others = faulty.measure(f"{phase} is killed once")
    assert faulty.file.with_suffix(".once").exists()
    assert [result.status for result in (bad, *others)] == [Status.OK] * 4


def test_a_kernel_that_forgets_one_of_its_terms_is_a_wrong_result(faulty: Faulty) -> None:
    bad, others = faulty.measure("one term short")
    assert bad.status is Status.WRONG_RESULT
    assert bad.reason is not None
    assert bad.reason.startswith("the output deviates ")
    assert bad.max_error is not None
    assert bad.max_error > 100
    assert bad.estimate_s is None
    assert [result.status for result in others] == [Status.OK] * 3


@pytest.mark.parametrize(
    ("clock", "reason"),
    [
        ("the clock says NaN", "the clock returned nan s"),
        ("the clock says infinity", "the clock returned inf s"),
        ("the clock stands", "the clock returned 0.0 s"),
        ("the clock runs backwards", "the clock returned -"),
        ("faster than light", "timed at 1e-09 us, below the "),
    ],
)
def test_a_time_that_cannot_be_true_is_noise_not_a_result(
    clock: str, reason: str, faulty: Faulty
) -> None:
    bad, others = faulty.measure(clock)
    assert bad.status is Status.NOISY
    assert bad.reason is not None
    assert bad.reason.startswith(reason)
    assert bad.estimate_s is None
    assert [result.status for result in others] == [Status.OK] * 3


def test_the_largest_are_compiled_first_once_the_usual_time_is_known(
    faults_file: Path, tiny_task: Task, hardware: Hardware, tiny_space: Space
) -> None:
    points = points_of(tiny_space, 12, seed=3)
    large, deadly = points[10], points[11]
    faults_file.write_text(json.dumps({str(large): "large", str(deadly): "large, build exits"}))
    log = faults_file.with_suffix(".compiled")
    log.unlink(missing_ok=True)
    with LocalMeasurer(tiny_task, hardware, workers=1, limits=SHORT) as measurer:
        results = measurer.measure(points)
    assert [result.point for result in results] == points
    assert results[10].ok
    assert results[11].status is Status.CRASH
    compiled = log.read_text().splitlines()
    # The deadline needs three known builds; what follows costs the least if it is killed.
    assert {str(large), str(deadly)}.isdisjoint(compiled[:3])
    assert compiled.index(str(large)) == 3


def test_two_of_equal_code_both_have_results_when_the_built_one_is_lost(
    faults_file: Path, tiny_task: Task, hardware: Hardware, tiny_space: Space
) -> None:
    one, other = next(iter(points_of_equal_code(tiny_space)))
    bad = next(point for point in points_of(tiny_space, 9) if point not in {one, other})
    faults_file.write_text(json.dumps({str(bad): "build exits"}))
    with LocalMeasurer(tiny_task, hardware, workers=1, limits=SHORT) as measurer:
        results = measurer.measure([one, other, bad])
    assert [result.point for result in results] == [one, other, bad]
    assert [result.status for result in results] == [Status.OK, Status.OK, Status.CRASH]
    assert results[1].repeated


@pytest.mark.slow
def test_an_incumbent_that_cannot_be_built_again_is_replaced_and_told_of_no_more(
    faults_file: Path, tiny_task: Task, hardware: Hardware, tiny_space: Space
) -> None:
    faults_file.write_text("{}")
    first, second, third = points_of(tiny_space, 3, seed=8)
    with LocalMeasurer(tiny_task, hardware, workers=1, limits=SHORT) as measurer:
        (best,) = measurer.measure([first])
        faults_file.write_text(json.dumps({str(second): "run exits", str(first): "build raises"}))
        measurer.measure([second])
        told: list[Result] = []
        results = measurer.measure([third], on_result=told.append)
        assert [result.point for result in told] == [third]
        assert results[0].ok
        assert measurer.measure([first])[0].samples_s == best.samples_s


def test_a_time_that_cannot_be_true_is_taken_again_once(faulty: Faulty) -> None:
    bad, _ = faulty.measure("the clock stands once")
    assert bad.ok
    assert min(bad.samples_s) > 0


def test_the_children_of_a_hanging_candidate_die_with_it(faulty: Faulty) -> None:
    bad, others = faulty.measure("build leaves children")
    children = [int(pid) for pid in faulty.file.with_suffix(".children").read_text().split()]
    assert bad.status is Status.BUILD_TIMEOUT
    assert len(children) == 2
    assert not any(is_running(pid) for pid in children)
    assert [result.status for result in others] == [Status.OK] * 3


def test_a_batch_of_nothing_but_faults_ends_with_a_status_for_each(
    faulty: Faulty, tiny_space: Space
) -> None:
    points = points_of(tiny_space, 4, seed=11)
    names = ["build segfaults", "run segfaults", "build raises", "run exits"]
    faults = {str(point): name for point, name in zip(points, names, strict=True)}
    faulty.file.write_text(json.dumps(faults))
    statuses = [result.status for result in faulty.measurer.measure(points)]
    assert statuses == [Status.CRASH, Status.CRASH, Status.BUILD_ERROR, Status.CRASH]


@pytest.mark.slow
def test_a_finalist_that_crashes_does_not_keep_the_others_from_being_sampled(
    faults_file: Path, tiny_task: Task, hardware: Hardware, tiny_space: Space
) -> None:
    bad, good = points_of(tiny_space, 2, seed=21)
    faults_file.write_text(json.dumps({str(bad): "run segfaults"}))
    with LocalMeasurer(tiny_task, hardware, workers=1, limits=SHORT) as measurer:
        untuned, crashed, last = measurer.load([UNTUNED, bad, good])
        assert crashed.result.status is Status.CRASH
        assert untuned.result.ok
        assert last.result.ok
        assert untuned.sample_s() > 0
        assert last.sample_s() > 0
        for pid in family_of(os.getpid()):
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match="could not time the reference kernel within"):
            measurer.slowdown()


@pytest.mark.slow
def test_workers_that_never_start_are_the_machines_fault(
    faults_file: Path,
    tiny_task: Task,
    hardware: Hardware,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    starts = faults_file.with_suffix(".starts")
    starts.unlink(missing_ok=True)
    faults_file.write_text(json.dumps({"start": "fails"}))
    before = family_of(os.getpid())
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(WorkerError) as raised:
        LocalMeasurer(tiny_task, hardware, workers=1)
    faults_file.write_text("{}")
    assert str(raised.value) == (
        "a measurement worker failed to start 3 times in a row "
        "(exited with code 1: no licence for this machine); run: schedenv doctor"
    )
    assert len(starts.read_text()) == 3
    assert list(tmp_path.glob("schedenv-*/")) == []
    assert not any(is_running(pid) for pid in family_of(os.getpid()) - before)


# -- the parent dies --------------------------------------------------------------------------

PARENT = """
import psutil
from schedenv import hardware
from schedenv.measure.local import LocalMeasurer
from schedenv.space import UNTUNED
from schedenv.tasks import resolve

measurer = LocalMeasurer(resolve("gmm:1x32x32x32"), hardware.detect(), workers=2)
measurer.measure([UNTUNED])
print(*(child.pid for child in psutil.Process().children(recursive=True)), flush=True)
while True:
    measurer.measure([UNTUNED] * 4)
"""


@pytest.mark.slow
def test_workers_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert parent.stdout is not None
    with parent:
        try:
            pids = parent.stdout.readline().split()
            workers = [int(pid) for pid in pids]
            assert len(workers) == 3
            assert all(is_running(pid) for pid in workers)
        finally:
            parent.send_signal(signal.SIGKILL)
    assert wait_until(lambda: not any(is_running(pid) for pid in workers))
