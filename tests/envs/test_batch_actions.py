"""Batched moves, masks, transfers and legality against `SearchSpace` and `EditActions`."""

import functools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schedenv.envs.actions import STOP, EditActions
from schedenv.envs.batch_actions import BatchActions
from schedenv.envs.batch_observations import BatchObservation
from schedenv.envs.layout import Layout
from schedenv.envs.observations import KnobObservation
from schedenv.envs.vector_recorded import successor_table
from schedenv.errors import InputError
from schedenv.hardware import Hardware
from schedenv.space import Point, SearchSpace, Space, SubSpace, fit_restriction
from schedenv.space.batch_part import BatchPart
from schedenv.space.batching import batch_space
from schedenv.tasks import SUITES, members, resolve

SpaceOf = Callable[[str], Space]

# Odd, prime and unit extents; every operator family, most of them with compute locations.
FAMILIES = {
    "gmm": "gmm:1x12x20x6",
    "gmm, odd": "gmm:2x15x7x1",
    "c1d": "c1d:1x9x4x6x3x2x1",
    "c2d": "c2d:1x6x6x4x6x3x1x1",
    "c3d": "c3d:1x4x4x4x2x3x3x1x1",
    "dep": "dep:1x9x9x6x3x2x1",
    "dil": "dil:1x7x7x3x4x3x1x1",
    "grp": "grp:1x6x6x4x8x3x1x1",
    "t2d": "t2d:1x4x4x3x4x4x2x1",
    "cap": "cap:1x4x4x2x2x3x1x1",
    "nrm": "nrm:1x15x14",
    "sfm": "sfm:8x12",
    "tbg": "tbg:1x8x2x6",
    "cbr": "cbr:1x6x6x3x4x3x1x1",
}
POINTS = 2

layout = Layout()
one_by_one = EditActions(layout)


@pytest.fixture(scope="session")
def part_of(space_of: SpaceOf) -> Callable[[str], SubSpace]:
    """A part of a family's space, listed once."""
    return functools.cache(
        lambda spec: SubSpace.of(space_of(spec), fit_restriction(space_of(spec), 80))
    )


@pytest.fixture(scope="session")
def spaces_of(
    space_of: SpaceOf, part_of: Callable[[str], SubSpace]
) -> Callable[[str, str], tuple[SearchSpace, BatchActions]]:
    """The whole space, or a part of it, with its batched actions."""

    @functools.cache
    def make(spec: str, extent: str) -> tuple[SearchSpace, BatchActions]:
        space = space_of(spec) if extent == "whole" else part_of(spec)
        return space, BatchActions(batch_space(space), layout)

    return make


SpacesOf = Callable[[str, str], tuple[SearchSpace, BatchActions]]

every_family = pytest.mark.parametrize("spec", FAMILIES.values(), ids=FAMILIES.keys())
whole_and_part = pytest.mark.parametrize("extent", ["whole", "part"])
some_seeds = settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@every_family
@whole_and_part
@some_seeds
@given(seed=st.integers(0, 1 << 32))
def test_the_batch_agrees_with_the_space_and_its_actions_one_by_one(
    spec: str, extent: str, seed: int, spaces_of: SpacesOf
) -> None:
    space, actions = spaces_of(spec, extent)
    rng = np.random.default_rng(seed)
    points = [space.sample(rng) for _ in range(POINTS)]
    rows = space.encode(points)
    before = rows.copy()
    masks = actions.mask(rows)
    assert actions.batch.is_legal(rows).all()
    assert masks.dtype == np.bool_
    for point, row, mask in zip(points, rows, masks, strict=True):
        repeated = np.repeat(row[None], actions.count, axis=0)
        moved, legal = actions.apply(repeated, np.arange(actions.count))
        moves = [one_by_one.move(space, point, action) for action in range(actions.count)]
        assert legal.tolist() == [move is not None for move in moves]
        assert mask.tolist() == [True, *legal[1:].tolist()]
        there = [point if move is None else move.apply(point) for move in moves]
        assert space.decode(moved) == there
        for sketch in range(len(space.sketches)):
            if sketch != point.sketch:
                (moved_over,) = space.decode(actions.batch.transfer(row[None], sketch))
                assert moved_over == space.transfer(point, sketch)
    np.testing.assert_array_equal(rows, before)


@every_family
@whole_and_part
@some_seeds
@given(seed=st.integers(0, 1 << 32))
def test_legality_of_points_beside_the_space_agrees_too(
    spec: str, extent: str, seed: int, spaces_of: SpacesOf
) -> None:
    space, actions = spaces_of(spec, extent)
    rng = np.random.default_rng(seed)
    points = []
    for _ in range(20):
        point = space.sample(rng)
        values = list(point.values)
        slot = int(rng.integers(len(values)))
        values[slot] += int(rng.integers(-3, 4))
        points.append(Point(point.sketch, tuple(values)))
    expected = [space.is_legal(point) for point in points]
    assert actions.batch.is_legal(space.encode(points)).tolist() == expected


@every_family
@whole_and_part
def test_drawn_points_are_legal_and_follow_their_own_generators(
    spec: str, extent: str, spaces_of: SpacesOf
) -> None:
    space, actions = spaces_of(spec, extent)
    rows = actions.batch.sample([np.random.default_rng(seed) for seed in range(30)])
    assert all(space.is_legal(point) for point in space.decode(rows))
    assert len(np.unique(rows, axis=0)) > 5
    alone = actions.batch.sample([np.random.default_rng(7)])
    np.testing.assert_array_equal(alone[0], rows[7])


def test_tiles_and_choices_are_drawn_uniformly(space_of: SpaceOf) -> None:
    space = space_of("gmm:1x12x20x6")
    rows = batch_space(space).sample([np.random.default_rng(3)] * 20_000)
    drawn = space.decode(rows)
    for sketch in space.sketches:
        of_sketch = [point.values for point in drawn if point.sketch == sketch.index]
        assert len(of_sketch) == pytest.approx(20_000 / len(space.sketches), rel=0.1)
        for knob in sketch.knobs:
            seen: dict[tuple[int, ...], int] = {}
            for values in of_sketch:
                chosen = values[knob.start : knob.start + knob.width]
                seen[chosen] = seen.get(chosen, 0) + 1
            assert len(seen) == knob.count()
            # Five standard deviations of a binomial.
            mean = len(of_sketch) / knob.count()
            assert max(abs(count - mean) for count in seen.values()) < 5 * mean**0.5


@every_family
@whole_and_part
@some_seeds
@given(seed=st.integers(0, 1 << 32))
def test_observations_of_many_points_are_those_of_each(
    spec: str, extent: str, seed: int, spaces_of: SpacesOf, hardware: Hardware
) -> None:
    space, actions = spaces_of(spec, extent)
    rng = np.random.default_rng(seed)
    points = [space.sample(rng) for _ in range(10)]
    built = BatchObservation(actions.batch, layout).build(space.encode(points))
    task, one = resolve(spec), KnobObservation(layout)
    for i, point in enumerate(points):
        expected = one.build(task, space, hardware, point, 1.0, (1.0, 1.0))
        for key, values in zip(("knobs", "knob_mask", "sketch"), built, strict=True):
            assert values.dtype == np.float32
            np.testing.assert_array_equal(values[i], expected[key])


@every_family
def test_the_successor_table_is_every_legal_action_of_every_point(
    spec: str, spaces_of: SpacesOf
) -> None:
    space, actions = spaces_of(spec, "part")
    assert isinstance(space, SubSpace)
    assert isinstance(actions.batch, BatchPart)
    table = successor_table(actions.batch, actions)
    points = space.points()
    assert table.shape == (len(points), actions.count)
    rng = np.random.default_rng(0)
    for at in rng.choice(len(points), 5, replace=False):
        for action in range(actions.count):
            move = one_by_one.move(space, points[at], action)
            number = table[at, action]
            assert (number == -1) if move is None else points[number] == move.apply(points[at])
    assert (table[:, STOP] == -1).all()


def test_tvm_is_asked_once_for_a_pattern_of_unit_loops(
    space_of: SpaceOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = space_of("sfm:8x12")
    batch = batch_space(space)
    rows = batch.sample([np.random.default_rng(seed) for seed in range(20)])
    actions = BatchActions(batch, layout)
    first = actions.mask(rows)
    asked: list[object] = []
    monkeypatch.setattr(Space, "location_candidates", lambda *_: asked.append(1))
    monkeypatch.setattr(Space, "location_consumer", lambda *_: asked.append(1))
    np.testing.assert_array_equal(actions.mask(rows), first)
    assert not asked


def test_something_else_than_a_space_is_refused() -> None:
    with pytest.raises(InputError, match=r"^expected a Space or a SubSpace, got str$"):
        batch_space("gmm")  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("suite", sorted(SUITES))
def test_every_suite_member_agrees(suite: str, spaces_of: SpacesOf) -> None:
    rng = np.random.default_rng(5)
    for spec in members(suite):
        for extent in ("whole", "part"):
            space, actions = spaces_of(spec, extent)
            points = [space.sample(rng) for _ in range(3)]
            masks = actions.mask(space.encode(points))
            for point, mask in zip(points, masks, strict=True):
                np.testing.assert_array_equal(mask, one_by_one.mask(space, point))
