"""How candidates are compared with the yardstick, on a scripted machine whose speed changes."""

import math
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
    """A runner with a yardstick of 1 ms, on a machine that then slows down as given."""

    def begin(slowdowns: list[float]) -> tuple[Machine, Runner]:
        machine = Machine([1.0])
        runner = Runner(machine, Limits(), floor_s=1e-9)  # type: ignore[arg-type]
        runner.run_all(Batch([job(machine, 0, 1e-3)], None, None))
        assert runner.yardstick is not None
        machine.slowdowns, machine.looks = slowdowns, []
        return machine, runner

    return begin


def run(machine: Machine, runner: Runner, *kernels_s: float) -> list[Job]:
    jobs = [job(machine, number, kernel_s) for number, kernel_s in enumerate(kernels_s, 1)]
    runner.run_all(Batch(jobs, 1e-3, None))
    return jobs


def later_estimate_s(machine: Machine, runner: Runner, kernel_s: float) -> float:
    """What a candidate is estimated at after many like it."""
    for _ in range(40):
        runner._drift = None
        late = job(machine, 99, kernel_s)
        runner.run_all(Batch([late], runner.best_s, None))
    assert late.result is not None
    assert late.result.estimate_s is not None
    return late.result.estimate_s


def test_half_of_a_slowdown_is_taken_out_of_a_candidate_timed_just_then(
    start: Callable[..., tuple[Machine, Runner]],
) -> None:
    machine, runner = start([1.44])
    (other,) = run(machine, runner, 2e-3)
    assert other.result is not None
    assert other.result.samples_s == pytest.approx([2.88e-3] * SAMPLES)
    assert other.result.drifts == pytest.approx([1.2] * SAMPLES)
    assert other.result.estimate_s == pytest.approx(2.4e-3)
    assert other.result.corrected_s == pytest.approx([2.4e-3] * SAMPLES)


def test_a_candidate_far_from_the_best_is_looked_at_once(
    start: Callable[..., tuple[Machine, Runner]],
) -> None:
    machine, runner = start([1.0])
    run(machine, runner, 2e-3)
    assert machine.looks == [0, 1]
    assert runner.yardstick is not None
    assert runner.yardstick.id == 0


def test_a_close_candidate_takes_three_turns_each_beside_the_yardstick(
    start: Callable[..., tuple[Machine, Runner]],
) -> None:
    # Lucky at its first look only; then truly 5 % slower.
    machine, runner = start([1.0, 0.9, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    (close,) = run(machine, runner, 1.05e-3)
    assert machine.looks == [0, 1, 0, 1, 0, 1, 0, 1]
    assert close.result is not None
    assert close.result.estimate_s == pytest.approx(1.05e-3)
    assert len(close.result.samples_s) == len(close.result.drifts) == 4 * SAMPLES
    assert runner.yardstick is not None
    assert runner.yardstick.id == 0


def test_a_leader_whose_turns_disagree_has_more_of_them(
    start: Callable[..., tuple[Machine, Runner]],
) -> None:
    # A burst hits the yardstick alone, twice: the kernel after it looks far too fast.
    bursts = [1.0, 1.0, 2.4, 1.0, 2.4, 1.0, 1.0, 1.0]
    machine, runner = start([*bursts, 1.0])
    (close,) = run(machine, runner, 1.05e-3)
    assert machine.looks.count(1) > 4
    assert close.result is not None
    assert close.result.estimate_s == pytest.approx(1.05e-3, rel=0.12)
    assert runner.yardstick is not None
    assert runner.yardstick.id == 0


def test_a_lucky_look_does_not_spare_others_their_turns(
    start: Callable[..., tuple[Machine, Runner]],
) -> None:
    # The first is lucky by half at its first look, the second a little; both are slower.
    machine, runner = start([1.0, 0.5, 0.9, 1.0])
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
    # The first look and two of the turns; what disturbs them leaves the yardstick alone.
    machine, runner = start([1.0, 0.7, 1.0, 1.6, 1.0, 1.0, 1.0, 1.6])
    machine.references = [1.0, 1.5, 1.0, 1.5, 1.0, 1.0, 1.0, 1.5]
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
    assert machine.looks == [0, 1]
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
    assert machine.looks == [0, 1]


def test_a_somewhat_faster_candidate_is_the_best_and_no_yardstick(
    start: Callable[..., tuple[Machine, Runner]],
) -> None:
    machine, runner = start([1.0])
    run(machine, runner, 0.9e-3, 0.8e-3, 5e-3)
    assert runner.best_s == pytest.approx(0.8e-3)
    assert runner.yardstick is not None
    assert runner.yardstick.id == 0


def test_a_yardstick_first_estimated_in_a_fast_moment_is_settled_to_the_usual_speed(
    start: Callable[..., tuple[Machine, Runner]],
) -> None:
    machine, runner = start([1.35])
    assert later_estimate_s(machine, runner, 1.5e-3) == pytest.approx(1.35 * 1.5e-3, rel=0.01)
    assert runner.best_s == pytest.approx(1.35e-3, rel=0.01)


def test_a_slowdown_after_the_yardstick_has_settled_is_taken_out(
    start: Callable[..., tuple[Machine, Runner]],
) -> None:
    machine, runner = start([1.0])
    later_estimate_s(machine, runner, 1.5e-3)
    machine.slowdowns = [1.35]
    assert later_estimate_s(machine, runner, 1.5e-3) == pytest.approx(1.5e-3, rel=0.01)


def test_a_remembered_yardstick_keeps_the_scale_of_the_results_it_comes_from(
    start: Callable[..., tuple[Machine, Runner]],
) -> None:
    machine, runner = start([1.35])
    runner.remember(runner.yardstick, 1e-3)
    assert later_estimate_s(machine, runner, 1.5e-3) == pytest.approx(1.5e-3, rel=0.01)


@pytest.mark.parametrize("slowdown", [1.0, 1.5])
def test_a_much_faster_candidate_becomes_the_yardstick_at_the_scale_of_the_old_one(
    start: Callable[..., tuple[Machine, Runner]], slowdown: float
) -> None:
    machine, runner = start([1.0])
    later_estimate_s(machine, runner, 1.5e-3)
    machine.slowdowns = [slowdown]
    later_estimate_s(machine, runner, 1.5e-3)
    # Chosen by lucky looks, and lucky beside the old one as well.
    machine.slowdowns = [slowdown, *[slowdown, 0.8 * slowdown] * 12, slowdown]
    (fast,) = run(machine, runner, 0.5e-3)
    assert runner.yardstick is fast
    assert fast.result is not None
    assert fast.result.estimate_s is not None
    assert fast.result.estimate_s < 0.45e-3
    machine.slowdowns = [slowdown]
    assert later_estimate_s(machine, runner, 0.9e-3) == pytest.approx(0.9e-3, rel=0.02)


def test_one_that_replaces_an_unsettled_yardstick_is_settled_to_the_usual_speed(
    start: Callable[..., tuple[Machine, Runner]],
) -> None:
    machine, runner = start([1.5])
    (fast,) = run(machine, runner, 0.5e-3)
    assert runner.yardstick is fast
    assert later_estimate_s(machine, runner, 0.9e-3) == pytest.approx(1.5 * 0.9e-3, rel=0.02)


@pytest.mark.parametrize("batches_a_runner", [200, 2, 1])
@pytest.mark.parametrize("seed", range(3))
def test_the_luck_of_those_that_were_chosen_does_not_add_up(
    monkeypatch: pytest.MonkeyPatch, seed: int, batches_a_runner: int
) -> None:
    monkeypatch.setattr(running, "_DRIFT_LASTS_S", -1.0)
    rng = random.Random(seed)
    machine = Machine([1.0])
    runner = Runner(machine, Limits(), floor_s=1e-9)  # type: ignore[arg-type]
    estimates_s = []
    for batch in range(200):
        if batch and batch % batches_a_runner == 0:
            # Another runner goes on where this one was.
            standard = runner.standard
            assert standard is not None
            yardstick = job(machine, 1000 + batch, 1e-3)
            yardstick.result = standard.result
            runner = Runner(machine, Limits(), floor_s=1e-9)  # type: ignore[arg-type]
            runner.remember(yardstick, standard.best_s, standard.scale)
        machine.slowdowns = [rng.choice([1.0, 1.0, 1.0, 1.05, 1.8]) for _ in range(400)]
        jobs = [job(machine, 4 * batch + n, 1e-3) for n in range(4)]
        runner.run_all(Batch(jobs, runner.best_s, None))
        estimates_s += [made.result.estimate_s for made in jobs if made.result is not None]
    assert len(estimates_s) == 800
    assert statistics.median(estimates_s[-200:]) == pytest.approx(1e-3, rel=0.1)
    assert min(estimates_s) > 0.6e-3


def test_a_yardstick_too_slow_to_be_one_is_replaced_without_being_timed_again() -> None:
    machine = Machine([1.0])
    runner = Runner(machine, Limits(), floor_s=1e-9)  # type: ignore[arg-type]
    runner.run_all(Batch([job(machine, 0, 0.5)], None, None))
    machine.looks = []
    runner.run_all(Batch([job(machine, 1, 0.1)], 0.5, None))
    assert runner.yardstick is not None
    assert runner.yardstick.id == 1
    assert machine.looks == [1] * 4


def test_a_yardstick_whose_worker_fails_while_it_is_replaced_is_given_up(
    start: Callable[..., tuple[Machine, Runner]], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, runner = start([1.0])
    look = runner._look

    def failing(made: Job, call_s: float) -> messages.Looked | None:
        asked.append(made.id)
        # The first looks are those of the turns.
        if made.id == 0 and asked.count(0) > 6:
            machine.workers = []
            return None
        assert machine.workers, "nothing is asked of a worker that is gone"
        return look(made, call_s)

    asked: list[int] = []
    monkeypatch.setattr(runner, "_look", failing)
    (fast,) = run(machine, runner, 0.5e-3)
    assert not machine.workers
    assert runner.yardstick is None
    assert fast.result is not None
    assert fast.result.estimate_s == pytest.approx(0.5e-3)


def test_a_slowdown_beyond_belief_is_not_divided_by(
    start: Callable[..., tuple[Machine, Runner]],
) -> None:
    machine, runner = start([300.0, 1.0])
    (other,) = run(machine, runner, 4e-3)
    assert other.result is not None
    assert other.result.drifts == pytest.approx([math.sqrt(2.5)] * SAMPLES)


def test_a_yardstick_that_was_estimated_in_a_bad_moment_is_estimated_anew(
    start: Callable[..., tuple[Machine, Runner]],
) -> None:
    machine, runner = start([0.1])
    (other,) = run(machine, runner, 20e-3)
    assert other.result is not None
    assert other.result.drifts == pytest.approx([1.0] * SAMPLES)


def test_a_kernel_too_slow_to_run_beside_every_candidate_gives_no_drift() -> None:
    machine = Machine([1.0])
    runner = Runner(machine, Limits(), floor_s=1e-9)  # type: ignore[arg-type]
    runner.run_all(Batch([job(machine, 0, 0.1)], None, None))
    jobs = [job(machine, 1, 0.2)]
    runner.run_all(Batch(jobs, 0.1, None))
    assert machine.looks == [0, 1]
    assert jobs[0].result is not None
    assert jobs[0].result.drifts == ()


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
    assert runner.yardstick is None


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
