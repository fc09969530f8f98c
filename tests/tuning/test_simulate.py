"""Searches on recorded tables."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from schedenv.envs.actions import STOP, EditActions
from schedenv.envs.layout import Layout
from schedenv.errors import UnknownNameError
from schedenv.hardware import Hardware
from schedenv.measure.recorded import total_cost_s
from schedenv.measure.table import Table
from schedenv.measure.table_file import write_table
from schedenv.space import Space
from schedenv.tasks import Task
from schedenv.tuning import Budget, agent_names
from schedenv.tuning.simulate import Improvement, Simulation, simulate

from ..recorded_table import make_table

ELSEWHERE = """
import json, sys
from pathlib import Path
from schedenv.measure.table_file import read_table
from schedenv.tuning import Budget
from schedenv.tuning.simulate import simulate
table = read_table(Path(sys.argv[1]))
runs = [simulate(table, name, Budget(seconds=5), 3) for name in sys.argv[2:]]
print(json.dumps([[list(step) for step in run.curve] for run in runs]))
assert "tvm" not in sys.modules
"""


@pytest.fixture(scope="module")
def table(tiny_task: Task, tiny_space: Space, hardware: Hardware) -> Table:
    return make_table(tiny_task, tiny_space, hardware, 100)


def test_one_seed_gives_one_curve_in_every_process_and_needs_no_tvm(
    table: Table, tmp_path: Path
) -> None:
    names = agent_names()
    runs = [simulate(table, name, Budget(seconds=5), 3) for name in names]
    assert [simulate(table, name, Budget(seconds=5), 3) for name in names] == runs
    assert all(simulate(table, r.agent, Budget(seconds=5), 4).curve != r.curve for r in runs)
    write_table(table, tmp_path / "table.parquet")
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(tmp_path / "table.parquet"), *names],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[list(step) for step in run.curve] for run in runs]


@pytest.mark.parametrize("name", agent_names())
def test_an_agent_with_enough_budget_finds_the_known_optimum(name: str, table: Table) -> None:
    run = simulate(table, name, Budget(trials=len(table.rows)), 0)
    assert run.curve[-1].regret == 0
    assert run.curve[-1].best_s == run.optimum_s == table.optimum_s
    assert run.fraction_at(run.elapsed_s) == 1
    assert run.elapsed_s <= total_cost_s(table) * 1.5


def test_the_curve_falls_and_its_seconds_are_simulated(table: Table) -> None:
    run = simulate(table, "random", Budget(trials=20), 0)
    assert run.trials == 20
    seconds = [step.seconds for step in run.curve]
    latencies = [step.best_s for step in run.curve]
    assert seconds == sorted(seconds)
    assert latencies == sorted(latencies, reverse=True)
    assert 0 < seconds[-1] <= run.elapsed_s
    for step in run.curve:
        assert step.regret == step.best_s / table.optimum_s - 1


def test_simulated_seconds_end_the_run(table: Table) -> None:
    budget = Budget(seconds=2)
    run = simulate(table, "random", budget, 0)
    assert 2 <= run.elapsed_s < total_cost_s(table)
    assert budget.used_trials == 0
    assert budget.elapsed_s == 0


def test_the_fraction_is_that_of_the_best_known_at_the_time() -> None:
    curve = (Improvement(1.0, 2, 4e-6, 1.0), Improvement(3.0, 9, 2.5e-6, 0.25))
    run = Simulation("random", 0, 2e-6, curve, 10, 4.0, {})
    assert [run.fraction_at(s) for s in (0.5, 1.0, 2.9, 3.0, 9.0)] == pytest.approx(
        [0, 0.5, 0.5, 0.8, 0.8]
    )


def test_an_unknown_agent_is_refused(table: Table) -> None:
    with pytest.raises(UnknownNameError):
        simulate(table, "gredy", Budget(trials=1), 0)


def test_the_actions_of_the_environment_stay_inside_a_tables_space(table: Table) -> None:
    space = table.space()
    Layout().check(space, "table")
    actions = EditActions(Layout())
    reached = {space.default()}
    frontier = list(reached)
    while frontier:
        point = frontier.pop()
        mask = actions.mask(space, point)
        assert mask[STOP]
        for action in mask.nonzero()[0][1:]:
            move = actions.move(space, point, int(action))
            assert move is not None
            there = move.apply(point)
            assert space.is_legal(there)
            if there not in reached:
                reached.add(there)
                frontier.append(there)
    assert reached == set(space.points())
