"""The tuning loop: a real space, a real store, real agents, and a scripted machine."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from schedenv.errors import AgentError
from schedenv.hardware import Hardware
from schedenv.measure import Result, Status
from schedenv.records import RecordStore
from schedenv.space import Point, Space
from schedenv.tasks import Task
from schedenv.tuning import Agent, Budget, Loop, Progress, agent_names, make_agent
from schedenv.tuning.loop import BATCH

from .synthetic import ScriptedMeasurer, bowl, failed, ok


class Scripted:
    """An agent that asks for what it is given and remembers what it is told."""

    def __init__(self, batches: Sequence[Sequence[Point]]) -> None:
        self._batches = list(batches)
        self.counts: list[int] = []
        self.told: list[list[Result]] = []

    def ask(self, count: int) -> list[Point]:
        self.counts.append(count)
        return list(self._batches.pop(0)) if self._batches else []

    def tell(self, results: Sequence[Result]) -> None:
        self.told.append(list(results))

    def state_dict(self) -> dict[str, Any]:
        return {}


class Bench:
    """Runs loops on one task and one store."""

    def __init__(self, task: Task, space: Space, hardware: Hardware, path: Path) -> None:
        self.task, self.space, self.hardware, self.path = task, space, hardware, path
        self.measurer = ScriptedMeasurer(space)

    def loop(
        self,
        agent: Any,
        trials: int,
        store: RecordStore,
        on_progress: Callable[[Progress], None] | None = None,
        hints: Sequence[Point] = (),
    ) -> Loop:
        return Loop(
            self.task,
            self.space,
            agent,
            self.measurer,
            store,
            Budget(trials=trials),
            self.hardware,
            on_progress,
            hints=hints,
        )

    def run(
        self, agent: Any, trials: int, on_progress: Callable[[Progress], None] | None = None
    ) -> Progress:
        with RecordStore(self.path, self.hardware.fingerprint) as store:
            return self.loop(agent, trials, store, on_progress).run()


@pytest.fixture
def bench(tiny_task: Task, tiny_space: Space, hardware: Hardware, tmp_path: Path) -> Bench:
    return Bench(tiny_task, tiny_space, hardware, tmp_path / "records.sqlite")


@pytest.fixture
def points(tiny_space: Space) -> list[Point]:
    """Points with programs of their own."""
    found = {tiny_space.canonical(p): p for p in tiny_space.neighbours(tiny_space.default())}
    assert len(found) >= 8
    return list(found.values())


def twins(space: Space) -> tuple[Point, Point]:
    """Two points that are one program."""
    default = space.default()
    form = space.canonical(default)
    twin = next(p for p in space.neighbours(default) if space.canonical(p) == form)
    return default, twin


def test_the_agent_is_told_every_result_in_the_order_it_asked(
    bench: Bench, points: list[Point]
) -> None:
    agent = Scripted([points[:5], points[5:8][::-1]])
    progress = bench.run(agent, 100)
    assert [[r.point for r in told] for told in agent.told] == [points[:5], points[5:8][::-1]]
    assert [r.samples_s for r in agent.told[0]] == [ok(p, bowl(p)).samples_s for p in points[:5]]
    assert progress.counts == {Status.OK: 8}
    assert progress.repeats == 0


def test_hints_are_measured_and_told_before_the_agent_is_asked(
    bench: Bench, points: list[Point]
) -> None:
    agent = Scripted([points[2:5]])
    with RecordStore(bench.path, bench.hardware.fingerprint) as store:
        progress = bench.loop(agent, 100, store, hints=points[:2]).run()
    assert [[r.point for r in told] for told in agent.told] == [points[:2], points[2:5]]
    assert progress.counts == {Status.OK: 5}
    # A run that goes on is told the same, and measures nothing again.
    again = Scripted([points[2:5]])
    with RecordStore(bench.path, bench.hardware.fingerprint) as store:
        bench.loop(again, 100, store, hints=points[:2]).run()
    assert again.told == agent.told
    assert len(bench.measurer.measured) == 5


def test_hints_count_as_trials(bench: Bench, points: list[Point]) -> None:
    agent = Scripted([points[3:6]])
    with RecordStore(bench.path, bench.hardware.fingerprint) as store:
        bench.loop(agent, 2, store, hints=points[:3]).run()
    assert bench.measurer.measured == points[:2]
    assert agent.counts == []


def test_one_program_asked_for_twice_in_a_batch_is_measured_once(
    bench: Bench, tiny_space: Space
) -> None:
    one, other = twins(tiny_space)
    agent = Scripted([[one, other, one]])
    progress = bench.run(agent, 100)
    assert bench.measurer.measured == [one]
    assert [r.point for r in agent.told[0]] == [one, other, one]
    assert [r.repeated for r in agent.told[0]] == [False, True, True]
    assert len({r.estimate_s for r in agent.told[0]}) == 1
    assert progress.repeats == 2
    assert progress.counts == {Status.OK: 1}


def test_a_program_known_from_an_earlier_batch_is_not_measured_again(
    bench: Bench, tiny_space: Space
) -> None:
    one, other = twins(tiny_space)
    agent = Scripted([[one], [other]])
    progress = bench.run(agent, 100)
    assert bench.measurer.measured == [one]
    assert agent.told[1][0].repeated
    assert progress.repeats == 1


def test_a_batch_is_measured_and_told_as_far_as_the_trials_go(
    bench: Bench, points: list[Point]
) -> None:
    agent = Scripted([points[:5], points[5:8], points])
    bench.run(agent, 7)
    # Always asked for a whole batch: a run that goes on with more trials must ask the same.
    assert agent.counts == [BATCH, BATCH]
    assert bench.measurer.measured == points[:7]
    assert [result.point for result in agent.told[1]] == points[5:7]


def test_repeats_within_the_last_batch_leave_trials_for_the_rest_of_it(
    bench: Bench, points: list[Point]
) -> None:
    agent = Scripted([[points[0], points[0], *points[1:4]]])
    bench.run(agent, 4)
    assert bench.measurer.measured == points[:4]
    assert [result.point for result in agent.told[0]] == [points[0], points[0], *points[1:4]]


def test_the_measurer_is_told_the_best_estimate_so_far(bench: Bench, points: list[Point]) -> None:
    ranked = sorted(points[:4], key=bowl)
    bench.run(Scripted([[ranked[2]], [ranked[0]], [ranked[3]], [ranked[1]]]), 4)
    known = [ok(point, bowl(point)).estimate_s or 0.0 for point in bench.measurer.measured]
    assert bench.measurer.incumbents_s == [None, known[0], min(known[:2]), min(known[:3])]


def test_progress_counts_every_result_and_its_curve_falls(
    bench: Bench, points: list[Point]
) -> None:
    bench.measurer.judge = lambda p: failed(p) if p == points[2] else ok(p, bowl(p))
    seen: list[tuple[int, int]] = []

    def remember(progress: Progress) -> None:
        seen.append((sum(progress.counts.values()), progress.counts[Status.BUILD_ERROR]))

    progress = bench.run(Scripted([points[:4], points[4:8]]), 100, remember)
    assert seen == [(1, 0), (2, 0), (3, 1), *((n, 1) for n in range(4, 9))]
    best = min(points[:2] + points[3:8], key=lambda p: ok(p, bowl(p)).estimate_s or 0)
    assert progress.best is not None
    assert progress.best.point == best
    latencies = [latency for _, _, latency in progress.curve]
    assert latencies == sorted(latencies, reverse=True)
    assert progress.curve[-1][2] == progress.best.estimate_s


def test_progress_knows_how_much_the_machine_itself_slowed_down(
    bench: Bench, points: list[Point]
) -> None:
    slowdowns = iter([1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9, 2.0])
    bench.measurer.judge = lambda p: replace(ok(p, bowl(p)), slowdowns=(next(slowdowns),))
    assert bench.run(Scripted([points[:4]]), 100).machine_range() is None
    assert bench.run(Scripted([points[4:11]]), 100).machine_range() == pytest.approx((1.1, 1.9))


def test_an_agent_that_asks_for_nothing_ends_the_run(bench: Bench) -> None:
    progress = bench.run(Scripted([]), 100)
    assert progress.best is None
    assert bench.measurer.measured == []


def test_an_agent_that_only_repeats_itself_ends_the_run(bench: Bench, points: list[Point]) -> None:
    agent = Scripted([[points[0]]] * 1000)
    bench.run(agent, 100)
    assert bench.measurer.measured == [points[0]]
    assert len(agent.told) == 51


def test_repeating_a_few_points_is_a_fault_but_not_a_lack_of_other_programs(
    bench: Bench, tiny_space: Space, points: list[Point], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("schedenv.tuning.loop.BATCH", 2)
    one, other = twins(tiny_space)
    assert bench.run(Scripted([[points[0]]] * 60), 100).fault == (
        "50 times in a row it asked only for what was measured already, after 1 trials"
    )
    bench.path.unlink()
    # Two points, one program: in the spaces of some kernels all points are a handful of programs.
    assert bench.run(Scripted([[one], [other]] * 30), 100).fault is None


def test_an_agent_that_raises_is_an_agent_error(bench: Bench) -> None:
    class Broken(Scripted):
        def ask(self, count: int) -> list[Point]:
            raise KeyError("lost")

    with pytest.raises(AgentError) as raised:
        bench.run(Broken([]), 4)
    assert str(raised.value) == "the agent Broken raised KeyError: 'lost'"


def test_an_agent_that_raises_when_told_is_an_agent_error(
    bench: Bench, points: list[Point]
) -> None:
    class Deaf(Scripted):
        def tell(self, results: Sequence[Result]) -> None:
            raise KeyError("lost")

    with pytest.raises(AgentError) as raised:
        bench.run(Deaf([points[:2]]), 4)
    assert str(raised.value) == "the agent Deaf raised KeyError when told results: 'lost'"


def test_an_agent_that_asks_for_an_illegal_point_is_an_agent_error(
    bench: Bench, points: list[Point]
) -> None:
    wrong = Point(0, (1, 2, 3))
    with pytest.raises(AgentError) as raised:
        bench.run(Scripted([[points[0], wrong]]), 4)
    width = len(points[0].values)
    assert str(raised.value) == (
        f"the agent Scripted asked for the illegal point 0:1,2,3: expected {width} values, got 3"
    )
    assert bench.measurer.measured == []


def test_an_agent_that_asks_for_more_points_than_it_may_is_an_agent_error(
    bench: Bench, points: list[Point]
) -> None:
    with pytest.raises(AgentError) as raised:
        bench.run(Scripted([(3 * points)[:17]]), 4)
    assert str(raised.value) == "the agent Scripted was asked for at most 16 points and gave 17"
    assert bench.measurer.measured == []


# -- resuming ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", agent_names())
def test_a_resumed_run_asks_what_an_uninterrupted_one_would_and_measures_nothing_twice(
    name: str, bench: Bench, tiny_space: Space, tmp_path: Path
) -> None:
    def agent() -> Agent:
        return make_agent(name, tiny_space, 3)

    whole = Bench(bench.task, tiny_space, bench.hardware, tmp_path / "whole.sqlite")
    straight = whole.run(agent(), 40)

    bench.run(agent(), 10)
    assert len(bench.measurer.measured) == 10
    bench.run(agent(), 29)
    resumed = bench.run(agent(), 40)
    forms = [tiny_space.canonical(point) for point in bench.measurer.measured]
    assert len(set(forms)) == len(forms) == 40
    assert bench.measurer.measured == whole.measurer.measured
    assert resumed.counts == straight.counts
    assert resumed.best == straight.best


@pytest.mark.parametrize("last", [21, 37])
@pytest.mark.parametrize("name", agent_names())
def test_a_run_that_dies_inside_a_batch_resumes_where_it_stopped(
    name: str, last: int, bench: Bench, tiny_space: Space, tmp_path: Path
) -> None:
    whole = Bench(bench.task, tiny_space, bench.hardware, tmp_path / "whole.sqlite")
    whole.run(make_agent(name, tiny_space, 3), last + 3)

    class PowerCut(Exception):
        pass

    def cut(progress: Progress) -> None:
        if sum(progress.counts.values()) == last:
            raise PowerCut

    with pytest.raises(PowerCut):
        bench.run(make_agent(name, tiny_space, 3), last + 3, cut)
    bench.run(make_agent(name, tiny_space, 3), last + 3)
    assert bench.measurer.measured == whole.measurer.measured


def test_a_finished_run_that_is_resumed_measures_nothing(bench: Bench, tiny_space: Space) -> None:
    bench.run(make_agent("random", tiny_space, 0), 16)
    progress = bench.run(make_agent("random", tiny_space, 0), 16)
    assert len(bench.measurer.measured) == 16
    assert sum(progress.counts.values()) == 16
    assert progress.best is not None


def test_results_are_those_of_distinct_programs_in_the_order_measured(
    bench: Bench, points: list[Point]
) -> None:
    with RecordStore(bench.path, bench.hardware.fingerprint) as store:
        loop = bench.loop(Scripted([points[:3], points[1:4]]), 10, store)
        loop.run()
        assert [r.point for r in loop.results] == points[:4]
        assert [record.result for record in store.records()] == loop.results
