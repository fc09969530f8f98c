"""The local measurer: what it returns for good candidates, and that it survives all others."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from schedenv import hardware as hw
from schedenv import tvm_adapter
from schedenv.errors import ConstraintError, MachineError, WorkerError
from schedenv.hardware import Hardware
from schedenv.measure import Result, Status, nursery
from schedenv.measure.local import Limits, LocalMeasurer
from schedenv.space import UNTUNED, Point, Space
from schedenv.tasks import Task

SHORT = Limits(build_s=3.0, run_floor_s=3.0, run_first_s=3.0)
"""Deadlines that a good candidate of the tiny task keeps a hundred times over."""


def points_of(space: Space, count: int, seed: int = 0) -> list[Point]:
    """Distinct points."""
    rng = np.random.default_rng(seed)
    found: dict[Point, None] = {}
    while len(found) < count:
        found[space.sample(rng)] = None
    return list(found)


def family_of(pid: int) -> set[int]:
    """All living descendants of a process."""
    return {child.pid for child in psutil.Process(pid).children(recursive=True)}


def is_running(pid: int) -> bool:
    """Whether the process lives; one that is dead and not yet reaped does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(condition: Callable[[], bool], timeout_s: float = 30.0) -> bool:
    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        if condition():
            return True
        time.sleep(0.05)
    return False


def points_of_equal_code(space: Space) -> Iterator[tuple[Point, Point]]:
    """Pairs of neighbours with other programs that lower to the same code."""
    for point in points_of(space, 50):
        for other in space.neighbours(point):
            if space.canonical(point) != space.canonical(other) and (
                code_of(space, point) == code_of(space, other) is not None
            ):
                yield point, other


def code_of(space: Space, point: Point) -> str | None:
    """What a point lowers to; None if it cannot be applied."""
    try:
        mod = space.apply(point).mod
    except ConstraintError:
        return None
    return tvm_adapter.code_hash(tvm_adapter.lower(mod, hw.target(hw.detect())))


# -- good candidates --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measurer(tiny_task: Task, hardware: Hardware) -> Iterator[LocalMeasurer]:
    with LocalMeasurer(tiny_task, hardware, workers=2) as measurer:
        yield measurer


def test_there_is_one_result_a_point_in_order_and_each_is_told_as_soon_as_it_is_known(
    measurer: LocalMeasurer, tiny_space: Space
) -> None:
    points = points_of(tiny_space, 7)
    told: list[Result] = []
    results = measurer.measure(points, on_result=told.append)
    assert [result.point for result in results] == points
    assert [result.status for result in results] == [Status.OK] * 7
    assert sorted(told, key=lambda r: r.point) == sorted(results, key=lambda r: r.point)


def test_a_good_result_holds_its_samples_its_program_and_where_the_time_went(
    measurer: LocalMeasurer, tiny_space: Space
) -> None:
    (point,) = points_of(tiny_space, 1, seed=1)
    (result,) = measurer.measure([point])
    assert result.ok
    assert result.reason is None
    assert len(result.slowdowns) == 1
    assert len(result.drifts) in {0, len(result.samples_s)}
    assert result.code is not None
    assert len(result.samples_s) >= 1
    assert result.max_error is not None
    assert 0 <= result.max_error < 1
    assert result.program == tiny_space.canonical(point)
    phases = result.phases
    assert min(phases.apply_s, phases.build_s, phases.verify_s, phases.run_s) > 0


def test_the_same_point_twice_in_a_batch_gives_two_results_of_one_measurement(
    measurer: LocalMeasurer, tiny_space: Space
) -> None:
    (point,) = points_of(tiny_space, 1, seed=2)
    told: list[Result] = []
    first, second = measurer.measure([point, point], on_result=told.append)
    assert (first.point, second.point) == (point, point)
    assert {first.repeated, second.repeated} == {False, True}
    assert second.samples_s == first.samples_s
    assert told == [second if first.repeated else first]


def test_what_was_measured_before_is_answered_and_not_measured_again(
    measurer: LocalMeasurer, tiny_space: Space
) -> None:
    points = points_of(tiny_space, 2, seed=3)
    earlier = measurer.measure(points)
    told: list[Result] = []
    again = measurer.measure(points, on_result=told.append)
    assert told == []
    assert [r.samples_s for r in again] == [r.samples_s for r in earlier]
    assert all(result.repeated for result in again)


def test_results_of_an_earlier_run_are_not_measured_again(
    tiny_task: Task, hardware: Hardware, tiny_space: Space, measurer: LocalMeasurer
) -> None:
    points = points_of(tiny_space, 3, seed=4)
    earlier = measurer.measure(points[:2])
    with LocalMeasurer(tiny_task, hardware, workers=1) as later:
        later.remember(earlier)
        first, second, third = later.measure(points)
    assert (first.repeated, second.repeated, third.repeated) == (True, True, False)
    assert first.samples_s == earlier[0].samples_s


@pytest.mark.slow
def test_points_of_equal_code_are_measured_once(
    tiny_task: Task, hardware: Hardware, tiny_space: Space
) -> None:
    """How far TVM may unroll is part of the program, but changes no code where loops are longer."""
    twins = next(iter(points_of_equal_code(tiny_space)))
    with LocalMeasurer(tiny_task, hardware, workers=2) as measurer:
        first, second = measurer.measure(twins)
    assert first.ok
    assert first.program != second.program
    assert first.code == second.code
    assert {first.repeated, second.repeated} == {False, True}
    assert second.estimate_s == first.estimate_s


def test_no_points_give_no_results(measurer: LocalMeasurer) -> None:
    assert measurer.measure([]) == []


def test_the_untuned_program_can_be_measured(measurer: LocalMeasurer, tiny_task: Task) -> None:
    (result,) = measurer.measure([UNTUNED])
    assert result.ok
    assert result.point == UNTUNED
    assert result.program == tiny_task.content_hash


def test_an_illegal_point_is_a_constraint_and_harms_no_other(
    measurer: LocalMeasurer, tiny_space: Space
) -> None:
    good, other = points_of(tiny_space, 2)
    wrong = Point(good.sketch, (7, *good.values[1:]))
    results = measurer.measure([good, wrong, other])
    assert [r.status for r in results] == [Status.OK, Status.CONSTRAINT, Status.OK]
    assert results[1].reason
    assert results[1].estimate_s is None
    assert results[1].samples_s == ()


def test_a_candidate_hopeless_against_the_incumbent_is_timed_roughly(
    measurer: LocalMeasurer, tiny_space: Space
) -> None:
    (result,) = measurer.measure(points_of(tiny_space, 1, seed=5), incumbent_s=1e-9)
    assert result.ok
    assert result.early_stopped
    assert result.estimate_s is not None


@pytest.mark.slow
def test_loaded_kernels_give_samples_until_others_are_loaded(
    tiny_task: Task, hardware: Hardware, tiny_space: Space
) -> None:
    with LocalMeasurer(tiny_task, hardware, workers=1) as measurer:
        kernels = measurer.load([UNTUNED, *points_of(tiny_space, 2)])
        assert all(kernel.result.ok for kernel in kernels)
        assert min(kernel.sample_s() for kernel in kernels for _ in range(2)) > 0


@pytest.mark.slow
def test_workers_are_replaced_after_their_share_of_builds_and_nothing_is_lost(
    tiny_task: Task, hardware: Hardware, tiny_space: Space
) -> None:
    limits = Limits(builds_per_worker=2)
    before = family_of(os.getpid())
    with LocalMeasurer(tiny_task, hardware, workers=1, limits=limits) as measurer:
        seen = set()
        for seed in range(3):
            points = points_of(tiny_space, 2, seed)
            assert all(result.ok for result in measurer.measure(points))
            seen |= family_of(os.getpid()) - before
    # Three workers, and the process that they were forked from.
    assert len(seen) == 4


def test_the_reference_of_a_task_that_cannot_be_computed_is_an_error_and_leaves_nothing(
    tiny_task: Task,
    hardware: Hardware,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    import dataclasses

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    broken = dataclasses.replace(tiny_task, spec="gmm:bad")
    with pytest.raises(MachineError, match=r"^the reference of gmm:1x32x32x32 cannot be computed"):
        LocalMeasurer(broken, hardware)
    assert [path for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


def test_closing_ends_every_process_and_removes_the_scratch_folder(
    tiny_task: Task, hardware: Hardware
) -> None:
    before = family_of(os.getpid())
    measurer = LocalMeasurer(tiny_task, hardware, workers=2)
    scratch = measurer._scratch
    pids = family_of(os.getpid()) - before
    assert len(pids) == 3
    assert scratch.exists()
    measurer.close()
    measurer.close()
    assert not any(is_running(pid) for pid in pids)
    assert not scratch.exists()


# -- faults -----------------------------------------------------------------------------------


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
