"""How candidates are compared, on a scripted machine whose speed changes."""

import random
import statistics
from collections.abc import Callable
from typing import Any

import pytest

from schedenv.measure import Phases, Status, messages, running
from schedenv.measure.job import Batch, Job
from schedenv.measure.pool import Ended, Limits
from schedenv.measure.running import Runner
from schedenv.measure.timing import Look
from schedenv.space import Point

SAMPLES = 10


def following(values: list[Any]) -> Any:
    """The next value; the last one for ever."""
    return values.pop(0) if len(values) > 1 else values[0]


class Machine:
    """A pool of one worker that holds kernels of known speed; each look takes the next slowdown.

    Attributes:
        slowdowns: How much slower the machine is at each look, the last one for ever.
        references: How much slower the reference kernel is at each look, the last one for ever;
            None where it is not timed.
        probes: The same at each probe.
        looks: Jobs looked at, in order.
    """

    def __init__(self, slowdowns: list[float]) -> None:
        self.slowdowns = slowdowns
        self.references: list[float | None] = [None]
        self.probes: list[float | Ended | None] = [None]
        self.looks: list[int] = []
        self.kernels_s: dict[int, float] = {}
        self.workers: list[Any] = [self]
        self._request: Any = None

    def ask(self, request: Any, _: float) -> None:
        self._request = request

    def wait_for(self, _: Any) -> Any:
        if isinstance(self._request, messages.Probe):
            probe = following(self.probes)
            return probe if isinstance(probe, Ended) else messages.Probed(probe)
        job = self._request.job
        self.looks.append(job)
        sample_s = self.kernels_s[job] * following(self.slowdowns)
        look = Look((sample_s,) * SAMPLES, following(self.references))
        if isinstance(self._request, messages.Run):
            return messages.Ran(job, Status.OK, None, look, 0.1, 0.0, 0.0)
        return messages.Looked(job, look, 0.0)

    def settle(self) -> None:
        pass

    def replace(self, _: Any) -> str:
        raise AssertionError("no worker fails here")


def job(machine: Machine, number: int, kernel_s: float) -> Job:
    """A built job whose kernel takes that long on the undisturbed machine."""
    machine.kernels_s[number] = kernel_s
    made = Job(number, Point(0, (number,)))
    made.lowered = messages.Lowered(number, Status.OK, None, f"p{number}", f"c{number}", Phases())
    made.built = messages.Built(number, Status.OK, None, f"p{number}", Phases())
    made.worker = machine  # type: ignore[assignment]
    return made


@pytest.fixture
def start() -> Callable[..., tuple[Machine, Runner]]:
    """A runner that knows a kernel of 1 ms, on a machine that then slows down as given."""

    def begin(slowdowns: list[float]) -> tuple[Machine, Runner]:
        machine = Machine([1.0])
        runner = Runner(machine, Limits(), floor_s=1e-9)  # type: ignore[arg-type]
        runner.run_all(Batch([job(machine, 0, 1e-3)], None, None))
        assert runner.best_s == pytest.approx(1e-3)
        assert machine.looks == [0]
        machine.slowdowns, machine.looks = slowdowns, []
        return machine, runner

    return begin


def run(machine: Machine, runner: Runner, *kernels_s: float) -> list[Job]:
    jobs = [job(machine, number, kernel_s) for number, kernel_s in enumerate(kernels_s, 1)]
    runner.run_all(Batch(jobs, 1e-3, None))
    return jobs


def test_a_sample_is_what_the_clock_showed(
    start: Callable[..., tuple[Machine, Runner]],
) -> None:
    machine, runner = start([1.44])
    machine.references = [1.6]
    (other,) = run(machine, runner, 2e-3)
    assert other.result is not None
    assert other.result.samples_s == other.result.corrected_s
    assert other.result.samples_s == pytest.approx([2.88e-3] * SAMPLES)
    assert other.result.estimate_s == pytest.approx(2.88e-3)
    assert other.result.slowdowns == (1.6,)
    assert other.result.drifts == ()


def test_a_candidate_far_from_the_best_is_looked_at_once(
    start: Callable[..., tuple[Machine, Runner]],
) -> None:
    machine, runner = start([1.0])
    run(machine, runner, 2e-3)
    assert machine.looks == [1]


def test_a_close_candidate_takes_three_turns_and_they_alone_count(
    start: Callable[..., tuple[Machine, Runner]],
) -> None:
    # Lucky at its first look only; then truly 5 % slower.
    machine, runner = start([0.9, 1.0])
    (close,) = run(machine, runner, 1.05e-3)
    assert machine.looks == [1] * 4
    assert close.result is not None
    assert close.result.estimate_s == pytest.approx(1.05e-3)
    assert len(close.result.samples_s) == 4 * SAMPLES
    assert runner.best_s == pytest.approx(1e-3)


def test_a_leader_takes_five_turns_and_up_to_nine_while_they_disagree(
    start: Callable[..., tuple[Machine, Runner]],
) -> None:
    machine, runner = start([1.0])
    run(machine, runner, 0.95e-3)
    assert machine.looks == [1] * (1 + 5)
    machine, runner = start([1.0, 1.0, 0.7, 1.3, 0.7, 1.3, 1.0, 1.0, 1.0])
    run(machine, runner, 0.95e-3)
    assert machine.looks == [1] * (1 + 9)


def test_the_first_of_all_takes_no_turn_alone_but_the_first_few_do() -> None:
    machine = Machine([1.0])
    runner = Runner(machine, Limits(), floor_s=1e-9)  # type: ignore[arg-type]
    jobs = [job(machine, number, s) for number, s in enumerate([2e-3, 1e-3, 1.05e-3])]
    runner.run_all(Batch(jobs, None, None))
    assert runner.best_s == pytest.approx(1e-3)
    assert machine.looks.count(0) == 1
    assert machine.looks.count(1) > 3
    assert machine.looks.count(2) == 1 + 3


def test_a_lucky_look_does_not_spare_others_their_turns(
    start: Callable[..., tuple[Machine, Runner]],
) -> None:
    # The first is lucky by half at its first look, the second a little; both are slower.
    machine, runner = start([0.5, 0.9, 1.0])
    lucky, other = run(machine, runner, 1.1e-3, 1.05e-3)
    assert lucky.result is not None
    assert other.result is not None
    assert lucky.result.estimate_s == pytest.approx(1.1e-3)
    assert other.result.estimate_s == pytest.approx(1.05e-3)
    assert runner.best_s == pytest.approx(1e-3)


def test_what_is_far_from_the_best_after_its_turns_takes_none(
    start: Callable[..., tuple[Machine, Runner]],
) -> None:
    machine, runner = start([1.0])
    run(machine, runner, 0.6e-3, 0.9e-3)
    assert machine.looks.count(2) == 1


def test_beside_calm_turns_disturbed_ones_do_not_count(
    start: Callable[..., tuple[Machine, Runner]],
) -> None:
    # The first look and two of the turns are disturbed.
    machine, runner = start([0.7, 1.6, 1.0, 1.6])
    machine.references = [1.5, 1.5, 1.0, 1.5]
    (close,) = run(machine, runner, 1.05e-3)
    assert close.result is not None
    assert close.result.estimate_s == pytest.approx(1.05e-3)
    assert close.result.counted == tuple(turn == 2 for turn in range(4) for _ in range(SAMPLES))
    assert close.result.corrected_s == pytest.approx([1.05e-3] * SAMPLES)


def test_a_candidate_without_a_calm_turn_has_some_more(
    start: Callable[..., tuple[Machine, Runner]],
) -> None:
    machine, runner = start([1.0])
    machine.references = [1.5]
    run(machine, runner, 1.05e-3)
    assert machine.looks.count(1) == 1 + 6


def test_a_turn_waits_for_a_calm_moment_but_not_for_long(
    start: Callable[..., tuple[Machine, Runner]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "_PATIENCE_S", 60.0)
    machine, runner = start([1.0])
    machine.probes = [1.5, 1.5, 1.0]
    run(machine, runner, 1.05e-3)
    assert machine.probes == [1.0]
    monkeypatch.setattr(running, "_PATIENCE_S", 0.0)
    machine.probes = [1.5, 1.5, 1.5, 1.5, 1.5]
    run(machine, runner, 1.05e-3)
    assert machine.probes == [1.5, 1.5]


def test_a_candidate_whose_worker_died_before_its_turn_keeps_what_is_known_of_it(
    start: Callable[..., tuple[Machine, Runner]], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, runner = start([1.0])

    def dies(_: Job) -> None:
        machine.workers = []

    monkeypatch.setattr(runner, "_await_calm", dies)
    (close,) = run(machine, runner, 1.05e-3)
    assert machine.looks == [1]
    assert close.result is not None
    assert close.result.estimate_s == pytest.approx(1.05e-3)


def test_a_worker_that_cannot_be_asked_how_disturbed_it_is_is_replaced(
    start: Callable[..., tuple[Machine, Runner]], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, runner = start([1.0])
    monkeypatch.setattr(machine, "replace", lambda _: setattr(machine, "workers", []))
    machine.probes = [Ended.OVERDUE]
    run(machine, runner, 1.05e-3)
    assert machine.workers == []
    assert machine.looks == [1]


def test_what_was_only_seen_in_disturbed_moments_does_not_look_faster_than_it_was(
    start: Callable[..., tuple[Machine, Runner]],
) -> None:
    machine, runner = start([1.3])
    machine.references = [2.4]
    run(machine, runner, 0.9e-3)
    assert runner.best_s == pytest.approx(1e-3)


def test_a_slow_machine_that_recovers_lets_the_faster_one_lead(
    start: Callable[..., tuple[Machine, Runner]],
) -> None:
    machine, runner = start([1.5])
    machine.references = [1.5]
    run(machine, runner, 0.9e-3)
    machine.slowdowns, machine.references = [1.0], [1.0]
    run(machine, runner, 0.95e-3)
    assert runner.best_s == pytest.approx(0.95e-3)


@pytest.mark.parametrize("seed", range(3))
def test_the_luck_of_those_that_were_chosen_does_not_add_up(seed: int) -> None:
    rng = random.Random(seed)
    machine = Machine([1.0])
    runner = Runner(machine, Limits(), floor_s=1e-9)  # type: ignore[arg-type]
    estimates_s = []
    for batch in range(200):
        machine.slowdowns = [rng.choice([1.0, 1.0, 1.0, 1.05, 1.8]) for _ in range(400)]
        jobs = [job(machine, 4 * batch + n, 1e-3) for n in range(4)]
        runner.run_all(Batch(jobs, runner.best_s, None))
        estimates_s += [made.result.estimate_s for made in jobs if made.result is not None]
    assert len(estimates_s) == 800
    assert statistics.median(estimates_s[-200:]) == pytest.approx(1e-3, rel=0.1)
    assert min(estimates_s) == pytest.approx(1e-3)


def test_a_slow_leader_takes_three_turns() -> None:
    machine = Machine([1.0])
    runner = Runner(machine, Limits(), floor_s=1e-9)  # type: ignore[arg-type]
    runner.run_all(Batch([job(machine, 0, 0.5)], None, None))
    machine.looks = []
    runner.run_all(Batch([job(machine, 1, 0.1)], 0.5, None))
    assert machine.looks == [1] * 4


def test_what_is_faster_than_the_machine_is_looked_at_again_and_then_noise() -> None:
    machine = Machine([1.0])
    runner = Runner(machine, Limits(), floor_s=1e-3)  # type: ignore[arg-type]
    jobs = [job(machine, 0, 0.5e-3)]
    runner.run_all(Batch(jobs, None, None))
    assert jobs[0].result is not None
    assert jobs[0].result.status is Status.NOISY
    assert jobs[0].result.reason == (
        "timed at 500 us, below the 1e+03 us that this machine needs at the very least"
    )
    assert machine.looks == [0, 0]
    assert runner.best_s is None


def test_what_a_worker_that_dies_of_a_second_look_had_built_is_built_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine([1.0])
    runner = Runner(machine, Limits(), floor_s=1e-3)  # type: ignore[arg-type]
    wait_for = machine.wait_for

    def dying(worker: Any) -> Any:
        if isinstance(machine._request, messages.LookAgain):
            return Ended.DIED
        return wait_for(worker)

    monkeypatch.setattr(machine, "wait_for", dying)
    monkeypatch.setattr(machine, "replace", lambda _: setattr(machine, "workers", []))
    impossible, other = job(machine, 0, 0.5e-3), job(machine, 1, 2e-3)
    batch = Batch([impossible, other], None, None)
    runner.run_all(batch)
    assert impossible.result is not None
    assert impossible.result.status is Status.NOISY
    assert batch.unfinished() == [other]
    assert other.lowered is None
    assert other.built is None


def test_a_worker_runs_once_the_threads_of_the_one_before_sleep(
    start: Callable[..., tuple[Machine, Runner]], monkeypatch: pytest.MonkeyPatch
) -> None:
    class OtherWorker:
        def ask(self, request: Any, limit_s: float) -> None:
            machine.ask(request, limit_s)

    machine, runner = start([1.0])
    pauses_s: list[float] = []
    monkeypatch.setattr(running.time, "sleep", pauses_s.append)
    run(machine, runner, 1.5e-3, 1.5e-3)
    assert pauses_s == []
    elsewhere = job(machine, 9, 1.5e-3)
    elsewhere.worker = OtherWorker()  # type: ignore[assignment]
    machine.workers.append(elsewhere.worker)
    runner.run_all(Batch([elsewhere], 1e-3, None))
    assert pauses_s == [running._SPIN_S]
