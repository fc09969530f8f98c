"""`schedenv/Build-v0`: decisions, and the points that they make."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedenv.envs.build import BuildEnv
from schedenv.envs.build_actions import BuildActions, Partial, decision_order, make_options
from schedenv.envs.layout import Layout
from schedenv.errors import InputError
from schedenv.measure.table_file import read_table
from schedenv.space import Point, Space, SubSpace

from .conftest import SMALL

actions = BuildActions(Layout())

FAMILIES = [
    "gmm:1x12x20x6",
    "c2d:1x6x6x4x6x3x1x1",
    "sfm:8x12",
    "tbg:1x8x2x6",
    "cap:1x4x4x2x2x3x1x1",
]


def build(env: BuildEnv, rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
    while True:
        action = int(rng.choice(np.flatnonzero(env.action_masks())))
        _, reward, terminated, _, info = env.step(action)
        if terminated:
            return float(reward), info
        assert reward == 0.0
        assert info["point"] is None


@pytest.mark.parametrize("spec", FAMILIES)
def test_every_way_through_the_masks_ends_at_a_legal_point(
    spec: str, space_of: Callable[[str], Space]
) -> None:
    space = space_of(spec)
    options = make_options(space)
    rng = np.random.default_rng(0)
    for _ in range(20):
        partial: Partial | None = Partial()
        while partial is not None and not options.is_complete(partial):
            mask = actions.mask(options, partial)
            assert mask.sum() > (partial.sketch is not None), "a forced decision was left open"
            partial = actions.decide(options, partial, int(rng.choice(np.flatnonzero(mask))))
        assert partial is not None
        assert space.explain_illegal(options.point(partial)) is None


@pytest.mark.parametrize("spec", FAMILIES)
def test_every_point_of_a_space_can_be_built(spec: str, space_of: Callable[[str], Space]) -> None:
    space = space_of(spec)
    options = make_options(space)
    rng = np.random.default_rng(1)
    for point in (space.sample(rng) for _ in range(20)):
        assert decided_as(options, point) == point


def test_exactly_the_points_of_a_table_can_be_built(tables: dict[str, str]) -> None:
    space = read_table(Path(tables[SMALL])).space()
    assert isinstance(space, SubSpace)
    options = make_options(space)
    assert all(decided_as(options, point) == point for point in space.points())
    reached, open_ends = set(), [Partial()]
    while open_ends:
        partial = open_ends.pop()
        if options.is_complete(partial):
            reached.add(options.point(partial))
            continue
        for action in np.flatnonzero(actions.mask(options, partial)):
            following = actions.decide(options, partial, int(action))
            assert following is not None
            open_ends.append(following)
    assert reached == set(space.points())


def decided_as(options: Any, point: Point) -> Point:
    """The point that comes out when every decision is taken as `point` has it."""
    partial = Partial()
    while not options.is_complete(partial):
        wanted = (
            point.sketch
            if partial.sketch is None
            else point.values[options.order(partial.sketch)[partial.decided]]
        )
        action = next(a for a, v in actions.values(options, partial).items() if v == wanted)
        partial = actions.decide(options, partial, action)
    return options.point(partial)


@given(seed=st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=20)
def test_an_action_means_the_same_at_every_level_and_an_illegal_one_does_nothing(
    seed: int, space_of: Callable[[str], Space]
) -> None:
    space = space_of(FAMILIES[0])
    options = make_options(space)
    rng = np.random.default_rng(seed)
    partial = Partial()
    while not options.is_complete(partial):
        mask = actions.mask(options, partial)
        for action in np.flatnonzero(~mask)[:10]:
            assert actions.decide(options, partial, int(action)) is None
        following = actions.decide(options, partial, int(rng.choice(np.flatnonzero(mask))))
        assert following is not None
        assert following.decided > partial.decided or partial.sketch is None
        partial = following


def test_compute_locations_are_decided_last(space_of: Callable[[str], Space]) -> None:
    for sketch in space_of("c2d:1x6x6x4x6x3x1x1").sketches:
        order = decision_order(sketch)
        assert sorted(order) == list(range(sketch.width))
        slots = [knob.start for knob in sketch.locations()]
        assert set(order[len(order) - len(slots) :]) == set(slots)


def test_the_last_decision_pays_the_log_speedup(tables: dict[str, str]) -> None:
    table = read_table(Path(tables[SMALL]))
    env = BuildEnv(reward="recorded", table=tables[SMALL])
    rng = np.random.default_rng(0)
    statuses = set()
    for seed in range(40):
        env.reset(seed=seed)
        reward, info = build(env, rng)
        statuses.add(info["status"])
        if info["status"] == "ok":
            row = table.by_point[Point.parse(info["point"])]
            assert row.estimate_s is not None
            assert reward == math.log(table.info.untuned_s / row.estimate_s)
        else:
            assert (reward, info["point"], info["latency_us"]) == (-1.0, None, None)
        assert info["trials"] == 1
        assert not env.action_masks().any()
    assert statuses == {"ok", "wrong_result"}


def test_the_observation_says_what_is_decided_and_what_is_next(tables: dict[str, str]) -> None:
    env = BuildEnv(reward="recorded", table=tables[SMALL])
    observation, _ = env.reset(seed=0)
    assert observation["decision"][0] == 1
    assert not observation["knobs"].any()
    assert not observation["sketch"].any()
    rng, decided = np.random.default_rng(0), 0
    terminated = False
    while not terminated:
        action = int(rng.choice(np.flatnonzero(env.action_masks())))
        observation, _, terminated, _, _ = env.step(action)
        assert env.observation_space.contains(observation)
        assert observation["decided"].sum() > decided
        assert not (observation["knobs"] * (1 - observation["decided"])).any()
        assert observation["decision"].sum() == (not terminated)
        assert observation["sketch"].sum() == 1
        decided = observation["decided"].sum()
    assert (observation["decided"] == observation["knob_mask"]).all()


def test_an_illegal_decision_does_nothing_and_costs_a_tenth(tables: dict[str, str]) -> None:
    env = BuildEnv(reward="recorded", table=tables[SMALL])
    env.reset(seed=0)
    mask = env.action_masks()
    _, reward, terminated, _, info = env.step(int(np.flatnonzero(~mask)[0]))
    assert (reward, terminated, info["illegal"]) == (-0.1, False, True)
    assert (env.action_masks() == mask).all()


def test_a_starting_point_is_refused(tables: dict[str, str]) -> None:
    env = BuildEnv(reward="recorded", table=tables[SMALL])
    with pytest.raises(InputError, match=r"^Build-v0 starts with nothing decided and takes no"):
        env.reset(options={"point": "0:1"})


def test_an_extent_with_more_divisors_than_actions_is_refused() -> None:
    with pytest.raises(InputError) as refusal:
        BuildEnv("gmm:1x50400x1x1")
    assert str(refusal.value) == (
        "gmm:1x50400x1x1 has 108 divisors of an extent, Build-v0 has actions for 64; use Edit-v0, "
        "which has no such limit"
    )


def test_the_text_shows_what_is_open(tables: dict[str, str]) -> None:
    env = BuildEnv(reward="recorded", table=tables[SMALL], render_mode="ansi")
    env.reset(seed=0)
    assert env.render() == f"{SMALL}: nothing is decided; next: the sketch"
    env.step(int(np.flatnonzero(env.action_masks())[0]))
    assert " x ?" in env.render()
    build(env, np.random.default_rng(0))
    assert "?" not in env.render()
