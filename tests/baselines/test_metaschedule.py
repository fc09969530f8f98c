"""TVM's tuner as a contestant: what a finished run says, and what is left of one that dies."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from schedenv import hardware as hw
from schedenv import tvm_database, tvm_tuning
from schedenv.baselines import metaschedule
from schedenv.baselines.metaschedule import (
    DATABASE,
    OUTCOME,
    MetaSchedule,
    NotInSpaceWarning,
    Outcome,
    best_points,
    fair,
)
from schedenv.comparison.contestant import Entry, contestant, contestant_names
from schedenv.errors import AgentError
from schedenv.hardware import Hardware
from schedenv.records.import_worker import RECORDS
from schedenv.space import Space
from schedenv.tasks import Task
from schedenv.tuning import Budget
from schedenv.tuning.finalists import FINALISTS

OUTSIDE = ((4e-6, "parallel: expected one of [0, 1], got 7"),)


def outcome(task: Task, hardware: Hardware, **changed: object) -> Outcome:
    """A finished run of 8 trials, seed 0."""
    request = metaschedule._describe(task, hardware, Budget(trials=8), 0, fair(hardware))
    made = Outcome(
        request=request,
        curve=((1.0, 1, 5e-6),),
        trials=8,
        elapsed_s=2.0,
        counts={"ok": 7, "run_error": 1},
        finalists=("0:1,2",),
        claimed_s=(5e-6,),
        outside=(),
    )
    return msgspec.structs.replace(made, **changed)


def keep(made: Outcome, out: Path) -> None:
    (out / OUTCOME).write_bytes(msgspec.json.encode(made))


# -- what needs no tuner ----------------------------------------------------------------------


def test_all_of_tvms_tuners_are_contestants() -> None:
    names = {"metaschedule", "metaschedule-stock", "metaschedule-droplet", "untuned"}
    assert names <= set(contestant_names())
    assert {contestant(name).name for name in names} == names


def test_untuned_finds_nothing_and_spends_nothing(
    tiny_task: Task, hardware: Hardware, tmp_path: Path
) -> None:
    entry = contestant("untuned").run(tiny_task, hardware, Budget(trials=1), 0, tmp_path)
    assert entry == Entry((), 0, 0.0, {}, ())


def test_a_finished_run_is_not_run_again(
    tiny_task: Task, hardware: Hardware, tmp_path: Path
) -> None:
    keep(outcome(tiny_task, hardware), tmp_path)
    budget = Budget(trials=8)
    entry = MetaSchedule().run(tiny_task, hardware, budget, 0, tmp_path)
    assert (entry.trials, entry.elapsed_s, entry.counts) == (8, 2.0, {"ok": 7, "run_error": 1})
    assert [str(point) for point in entry.finalists] == ["0:1,2"]
    assert (budget.used_trials, budget.used_s) == (8, 2.0)


def test_best_traces_outside_the_space_are_said_aloud(
    tiny_task: Task, hardware: Hardware, tmp_path: Path
) -> None:
    keep(outcome(tiny_task, hardware, outside=OUTSIDE), tmp_path)
    with pytest.warns(NotInSpaceWarning) as caught:
        entry = MetaSchedule().run(tiny_task, hardware, Budget(trials=8), 0, tmp_path)
    assert str(caught[0].message) == (
        f"metaschedule on {tiny_task.name}: 1 of its best traces are no points of the space and "
        "are not measured again (4 us: parallel: expected one of [0, 1], got 7); 1 others are"
    )
    assert entry.fault is None


def test_a_run_whose_best_traces_are_all_outside_is_at_fault(
    tiny_task: Task, hardware: Hardware, tmp_path: Path
) -> None:
    keep(outcome(tiny_task, hardware, outside=OUTSIDE, finalists=(), claimed_s=()), tmp_path)
    entry = MetaSchedule().run(tiny_task, hardware, Budget(trials=8), 0, tmp_path)
    assert entry.fault == (
        "none of its best traces is a point of the space "
        "(4 us: parallel: expected one of [0, 1], got 7)"
    )


def test_a_damaged_outcome_is_no_outcome(tmp_path: Path) -> None:
    for text in (b"", b"{", b'{"trials": "x"}'):
        (tmp_path / OUTCOME).write_bytes(text)
        assert metaschedule.read_outcome(tmp_path) is None


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (None, "ok"),
        ("LocalRunner: Timeout, killed after 30 seconds", "run_timeout"),
        ("LocalRunner: An exception occurred\nSubprocess terminated", "crash"),
        ("LocalRunner: An exception occurred\nValueError: x", "run_error"),
    ],
)
def test_tvms_error_messages_become_statuses(message: str | None, status: str) -> None:
    assert tvm_tuning._run_status(message) == status


def test_the_fair_tuner_uses_all_cores_and_asks_its_model_from_the_second_round(
    hardware: Hardware,
) -> None:
    tuner = fair(hardware)
    assert tuner.builders == hardware.cores
    assert tuner.warm_up <= tuner.batch < metaschedule.STOCK.batch


def test_the_best_lines_of_a_database_become_points_fastest_first(
    tiny_task: Task, tiny_space: Space, tmp_path: Path
) -> None:
    points = [tiny_space.default(index) for index in range(3)]
    records = [
        (tiny_task.mod, tiny_space.apply(point).trace, seconds)
        for point, seconds in zip(points, (3e-6, 1e-6, 2e-6), strict=True)
    ]
    folder = tmp_path / DATABASE
    folder.mkdir()
    tvm_database.write_database(str(folder), records, hw.target(hw.detect()))
    lines = (folder / RECORDS).read_text().splitlines()
    failed, foreign = json.loads(lines[0]), json.loads(lines[0])
    failed[1][1] = [1e10]
    foreign[1][1] = [5e-7]
    next(i for i in foreign[1][0][0] if i[0] == "SamplePerfectTile")[0] = "Other"
    more = [json.dumps(failed), json.dumps(foreign), lines[0][:100], "", "[]"]
    (folder / RECORDS).write_text("\n".join([*lines, *more]))
    found, outside = best_points(tmp_path, tiny_task, hw.detect())
    assert found == [(points[1], 1e-6), (points[2], 2e-6), (points[0], 3e-6)]
    ((claimed_s, reason),) = outside
    assert claimed_s == 5e-7
    assert "are not those of any of the space's 3 sketches" in reason


# -- with the tuner ---------------------------------------------------------------------------


class Running:
    """A run in a thread, and the processes that belong to it."""

    def __init__(self, task: Task, hardware: Hardware, out: Path, budget: Budget) -> None:
        self.entry: Entry | None = None
        self.error: BaseException | None = None
        self.budget, self._out = budget, out
        self._thread = threading.Thread(
            target=self._run, args=(task, hardware, out, budget), daemon=True
        )
        self._thread.start()

    def _run(self, task: Task, hardware: Hardware, out: Path, budget: Budget) -> None:
        try:
            self.entry = MetaSchedule().run(task, hardware, budget, 0, out)
        except BaseException as error:
            self.error = error

    def wait_for(self, ready: Callable[[], bool], limit_s: float = 240.0) -> None:
        end_s = time.monotonic() + limit_s
        while not ready():
            assert time.monotonic() < end_s, "not in time"
            time.sleep(0.05)

    def tuner(self) -> psutil.Process | None:
        return next(iter(tuners(self._out)), None)

    def join(self) -> None:
        self._thread.join(240.0)
        assert not self._thread.is_alive()


def tuners(out: Path) -> list[psutil.Process]:
    """Processes that work in a run's folder: the tuner, and its builders and runners."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TMPDIR", "").startswith(str(out)):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return [process for process in found if process.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    assert tuners(tmp_path) == []
    assert not (tmp_path / "scratch").exists()


@pytest.mark.slow
def test_it_tunes_within_its_trials_and_leaves_points(
    tiny_task: Task, tiny_space: Space, hardware: Hardware, out: Path
) -> None:
    budget = Budget(trials=8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotInSpaceWarning)
        entry = MetaSchedule().run(tiny_task, hardware, budget, 0, out)
    assert entry.trials == sum(entry.counts.values()) == budget.used_trials == 8
    assert entry.fault is None
    assert all(tiny_space.is_legal(point) for point in entry.finalists)
    assert 1 <= len(entry.finalists) <= FINALISTS
    seconds, trials, best = zip(*entry.curve, strict=True)
    assert list(seconds) == sorted(seconds)
    assert list(trials) == sorted(trials)
    assert list(best) == sorted(best, reverse=True)
    assert seconds[-1] <= entry.elapsed_s


@pytest.mark.slow
def test_droplet_goes_on_from_the_best_record(
    tiny_task: Task, hardware: Hardware, out: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotInSpaceWarning)
        entry = contestant("metaschedule-droplet").run(
            tiny_task, hardware, Budget(trials=8), 0, out
        )
    assert 6 < entry.trials <= 6 + 2 + 16  # its first round is as long as it has knobs
    assert entry.finalists


@pytest.mark.slow
def test_when_the_seconds_are_over_what_was_run_in_time_counts(
    tiny_task: Task, hardware: Hardware, out: Path
) -> None:
    entry = MetaSchedule().run(tiny_task, hardware, Budget(seconds=12.0), 0, out)
    assert all(seconds <= 12.0 for seconds, _, _ in entry.curve)
    assert entry.elapsed_s < 60.0
    assert bool(entry.curve) == bool(entry.finalists)


@pytest.mark.slow
def test_a_tuner_that_dies_is_a_failure_with_its_last_words(
    tiny_task: Task, hardware: Hardware, out: Path
) -> None:
    running = Running(tiny_task, hardware, out, Budget(trials=64))
    running.wait_for(lambda: running.budget.elapsed_s > 0)
    tuner = running.tuner()
    assert tuner is not None
    os.kill(min(tuners(out), key=lambda one: one.create_time()).pid, signal.SIGKILL)
    running.join()
    assert isinstance(running.error, AgentError)
    assert str(running.error).startswith(
        "metaschedule failed after 0 trials: TVM's tuner died of SIGKILL"
    )
    assert not (out / OUTCOME).exists()


@pytest.mark.slow
def test_a_tuner_that_hangs_is_killed(
    tiny_task: Task, hardware: Hardware, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metaschedule, "_THINK_LIMIT_S", 1.0)
    monkeypatch.setattr(metaschedule, "_BUILD_LIMIT_S", 0.0)
    running = Running(tiny_task, hardware, out, Budget(trials=64))
    running.wait_for(lambda: running.budget.elapsed_s > 0)
    for process in tuners(out):
        process.suspend()
    running.join()
    assert str(running.error) == (
        "metaschedule failed after 0 trials: TVM's tuner said nothing for 1 s"
    )


@pytest.mark.slow
def test_nothing_survives_a_race_that_is_killed(tiny_task: Task, out: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from schedenv import hardware as hw\n"
        "from schedenv.baselines.metaschedule import MetaSchedule\n"
        "from schedenv.tasks import resolve\n"
        "from schedenv.tuning import Budget\n"
        "MetaSchedule().run(resolve(sys.argv[1]), hw.detect(), Budget(64), 0, Path(sys.argv[2]))\n"
    )
    race = subprocess.Popen([sys.executable, "-c", program, tiny_task.spec, str(out)])
    end_s = time.monotonic() + 240.0
    while len(tuners(out)) < 2:
        assert time.monotonic() < end_s
        time.sleep(0.1)
    race.kill()
    race.wait()
    while tuners(out):
        assert time.monotonic() < end_s
        time.sleep(0.1)
    # The next run clears what this one has left.
    assert (out / "scratch").exists()
    metaschedule.shutil.rmtree(out / "scratch")
