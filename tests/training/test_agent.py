"""A trained policy as an agent."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from schedenv.envs.actions import STOP, EditActions
from schedenv.envs.layout import Layout
from schedenv.envs.observations import KnobObservation, Observation
from schedenv.errors import InputError
from schedenv.hardware import Hardware
from schedenv.measure import Result, Status
from schedenv.measure.table_file import read_table
from schedenv.space import Point, SearchSpace, Space
from schedenv.space.batch import Bools, Indices
from schedenv.tasks import Task
from schedenv.training.agent import PolicyAgent, PolicyWalk
from schedenv.training.checkpoint import TrainedPolicy, load_policy
from schedenv.training.train import Outcome
from schedenv.training.untrained import untrained
from schedenv.tuning import Budget
from schedenv.tuning.agent import TuningContext, find_agent
from schedenv.tuning.simulate import simulate

from .conftest import HELD_OUT


class Spying:
    """A policy that remembers what it saw, and takes the last legal action."""

    def act(
        self, observations: Observation, masks: Bools, rng: np.random.Generator | None = None
    ) -> Indices:
        self.seen, self.masks = observations, masks
        return masks.shape[1] - 1 - masks[:, ::-1].argmax(axis=1)


class Stopping:
    """A policy that stops wherever it is."""

    def act(
        self, observations: Observation, masks: Bools, rng: np.random.Generator | None = None
    ) -> Indices:
        return np.full(len(masks), STOP)


@pytest.fixture
def context(tiny_task: Task, hardware: Hardware) -> TuningContext:
    return TuningContext(tiny_task, hardware, 1e-4)


@pytest.fixture
def loaded(trained: Outcome, trained_folder: Path) -> TrainedPolicy:
    return load_policy(trained_folder)


def told(agent: PolicyAgent, points: list[Point]) -> None:
    """Results that depend on the point alone; some fail."""
    results = []
    for point in points:
        total = sum(map(abs, point.values))
        if total % 5 == 0:
            results.append(Result(point=point, status=Status.RUN_ERROR, reason="as scripted"))
        else:
            time_s = 1e-6 * total
            results.append(
                Result(point=point, status=Status.OK, samples_s=(time_s,), estimate_s=time_s)
            )
    agent.tell(results)


def asked(agent: PolicyAgent, space: SearchSpace, rounds: int) -> list[list[Point]]:
    given = []
    for _ in range(rounds):
        points = agent.ask(16)
        assert len(set(points)) == len(points)
        assert all(space.is_legal(point) for point in points)
        given.append(points)
        told(agent, points)
    return given


def test_the_policy_sees_what_it_sees_in_the_environment(
    loaded: TrainedPolicy, tiny_space: Space, context: TuningContext
) -> None:
    spy, layout, rng = Spying(), Layout(), np.random.default_rng(0)
    walk = PolicyWalk(replace(loaded, policy=spy), tiny_space, context)
    points = [tiny_space.sample(rng) for _ in range(12)]
    steps = [number % walk.most_steps for number in range(12)]
    speedups = [(float(number), 2.0 + number) for number in range(12)]
    there = walk.step(points, steps, speedups, rng)
    actions, observation = EditActions(layout), KnobObservation(layout)
    for index, point in enumerate(points):
        expected = observation.build(
            context.task, tiny_space, context.hardware, point,
            1.0 - steps[index] / walk.most_steps, speedups[index],
        )  # fmt: skip
        for key, value in expected.items():
            np.testing.assert_allclose(spy.seen[key][index], value, rtol=1e-6, err_msg=key)
        mask = actions.mask(tiny_space, point)
        np.testing.assert_array_equal(spy.masks[index], mask)
        move = actions.move(tiny_space, point, int(mask.nonzero()[0][-1]))
        assert move is not None
        assert there[index] == move.apply(point)


def test_it_asks_for_legal_points_that_are_new_and_the_same_ones_again(
    loaded: TrainedPolicy, tiny_space: Space, context: TuningContext
) -> None:
    first, again, other = (
        asked(PolicyAgent(loaded, tiny_space, seed, context), tiny_space, 25) for seed in (1, 1, 2)
    )
    assert first == again != other
    points = [point for given in first for point in given]
    assert len(set(points)) == len(points)


def test_a_policy_that_stops_at_once_asks_for_its_starts(
    loaded: TrainedPolicy, tiny_space: Space, context: TuningContext
) -> None:
    agent = PolicyAgent(replace(loaded, policy=Stopping()), tiny_space, 0, context)
    rounds = asked(agent, tiny_space, 10)
    assert len({point for points in rounds for point in points}) == 40


def test_its_state_is_json_and_lists_the_fastest_first(
    loaded: TrainedPolicy, tiny_space: Space, context: TuningContext
) -> None:
    agent = PolicyAgent(loaded, tiny_space, 0, context)
    asked(agent, tiny_space, 5)
    state = agent.state_dict()
    assert json.loads(json.dumps(state)) == state
    speedups = [speedup for speedup, _ in state["speedups"]]
    assert speedups == sorted(speedups, reverse=True)


def test_a_checkpoint_is_an_agent_by_its_folder_and_needs_to_know_the_task(
    loaded: TrainedPolicy, trained_folder: Path, tables: dict[str, str], tiny_space: Space
) -> None:
    table = read_table(Path(tables[HELD_OUT]))
    run = simulate(table, f"mine={trained_folder}", Budget(trials=20), 0)
    assert (run.agent, run.trials, run.fault) == ("mine", 20, None)
    assert run == simulate(table, f"mine={trained_folder}", Budget(trials=20), 0)
    factory = find_agent(str(trained_folder))
    assert factory.name == trained_folder.name
    with pytest.raises(InputError) as caught:
        factory.make(tiny_space, 0)
    assert str(caught.value) == (
        "an agent from a checkpoint needs the task and the hardware; pass context="
        "TuningContext(task, hardware, untuned_s)"
    )


def test_the_untrained_policy_is_the_one_that_training_began_with(loaded: TrainedPolicy) -> None:
    before, again = untrained(loaded), untrained(loaded)
    assert before.info == loaded.info
    rng = np.random.default_rng(0)
    sizes = loaded.info.spaces.observation
    seen = {key: rng.random((4, size), np.float32) for key, size in sizes.items()}
    logits = [policy.policy.logits(seen) for policy in (before, again, loaded)]
    np.testing.assert_array_equal(logits[0], logits[1])
    assert not np.allclose(logits[0], logits[2])
    # SB3 initialises the last layer of a policy so that all actions are about as likely.
    assert np.ptp(logits[0]) < 0.2
