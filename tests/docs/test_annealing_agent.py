"""The agent of the tutorial keeps its promises, and enters a race with no change elsewhere."""

import json
from pathlib import Path

import numpy as np
import pytest

from schedenv.comparison.arenas import make_arena
from schedenv.comparison.race import Request, race
from schedenv.measure import Result, Status
from schedenv.measure.table_file import read_table, shipped_tables
from schedenv.space import Point
from schedenv.tuning import Budget, make_agent
from schedenv.tuning.simulate import simulate

ROOT = Path(__file__).parents[2]
NAME = f"{ROOT}/docs/examples/annealing_agent.py:AnnealingAgent"


def answer(point: Point) -> Result:
    """Fails for some points; otherwise as slow as its values are large."""
    if sum(point.values) % 3 == 0:
        return Result(point=point, status=Status.RUN_ERROR, reason="as scripted")
    estimate_s = 1e-6 * (1 + float(np.abs(point.values).sum()))
    return Result(point=point, status=Status.OK, samples_s=(estimate_s,), estimate_s=estimate_s)


def test_it_asks_for_legal_points_and_the_same_ones_again() -> None:
    space = read_table(shipped_tables()["gmm"]).space()
    rounds = []
    for _ in range(2):
        agent, asked = make_agent(NAME, space, 1), []
        for _ in range(30):
            points = agent.ask(16)
            assert 1 <= len(points) <= 16
            assert all(space.is_legal(point) for point in points)
            asked.append(points)
            agent.tell([answer(point) for point in points])
        rounds.append(asked)
        state = agent.state_dict()
        assert json.loads(json.dumps(state)) == state
        assert state["temperature"] < 0.3
    assert rounds[0] == rounds[1]


def test_results_that_are_all_failures_do_not_stop_it() -> None:
    space = read_table(shipped_tables()["gmm"]).space()
    agent = make_agent(NAME, space, 1)
    for _ in range(10):
        points = agent.ask(16)
        agent.tell([Result(point=p, status=Status.CRASH, reason="as scripted") for p in points])
    assert len(agent.ask(16)) > 0


def test_it_finds_good_schedules_and_enters_a_race_by_the_name_of_its_file(tmp_path: Path) -> None:
    run = simulate(read_table(shipped_tables()["dep"]), NAME, Budget(trials=128), 0)
    assert run.fault is None
    assert run.curve[-1].regret < 0.2
    arena = make_arena(["random", NAME], [], "dep", tmp_path)
    summary = race(Request(arena, 2, 32, None, None, tmp_path / "race"))
    assert [one.agent for one in summary.standings] == ["random", "AnnealingAgent"]
    assert [one.failed for one in summary.standings] == [0, 0]


def test_the_tutorial_names_what_exists() -> None:
    text = (ROOT / "docs" / "agents.md").read_text()
    for name in ("docs/examples/annealing_agent.py:AnnealingAgent", "schedenv compare"):
        assert name in text
    for path in ("docs/examples/annealing_agent.py", "agents/random.py", "agents/evolutionary.py"):
        assert path in text
        assert (ROOT / path).is_file()


@pytest.mark.parametrize("lines", [120])
def test_it_stays_small_enough_to_be_read_at_once(lines: int) -> None:
    assert len(Path(NAME.rpartition(":")[0]).read_text().splitlines()) <= lines
