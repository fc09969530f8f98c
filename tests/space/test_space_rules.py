"""Properties of small spaces, checked against TVM itself."""

import json
import subprocess
import sys
from collections import deque
from collections.abc import Callable

import numpy as np
import pytest
import tvm_ffi
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schedenv.errors import ConstraintError, IllegalPointError
from schedenv.space import FactorMove, LocationKnob, Point, SetMove, SketchMove, Space

SpaceOf = Callable[[str], Space]

SMALL = ["gmm:1x12x20x6", "nrm:1x12x20", "sfm:8x12", "gmm:1x7x13x1"]

reuses_fixtures = settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def reachable(space: Space, most: int) -> dict[Point, None]:
    """The points that moves lead to from the default point, nearest first, at most so many."""
    found = {space.default(): None}
    queue = deque(found)
    while queue and len(found) < most:
        for neighbour in space.neighbours(queue.popleft()):
            if neighbour not in found:
                found[neighbour] = None
                queue.append(neighbour)
    return found


# -- points and moves -------------------------------------------------------------------------


@pytest.mark.parametrize("spec", SMALL)
@given(seed=st.integers(0, 2**32 - 1))
@reuses_fixtures
def test_a_sampled_point_is_legal_and_tvm_keeps_its_decisions(
    spec: str, seed: int, space_of: SpaceOf
) -> None:
    space = space_of(spec)
    point = space.sample(np.random.default_rng(seed))
    assert space.explain_illegal(point) is None
    schedule = space.apply(point)
    assert space.sketches[point.sketch].read_back(schedule.trace) == point.values


@pytest.mark.parametrize("spec", SMALL)
@given(seed=st.integers(0, 2**32 - 1))
@reuses_fixtures
def test_every_legal_move_leads_to_a_legal_point_and_back(
    spec: str, seed: int, space_of: SpaceOf
) -> None:
    space = space_of(spec)
    point = space.sample(np.random.default_rng(seed))
    moves = space.legal_moves(point)
    assert len(set(moves)) == len(moves)
    # Some of them: with softmax, each move has locations that only TVM knows.
    for move in moves[seed % 7 :: 7]:
        moved = move.apply(point)
        assert space.is_legal(moved), f"{move} leads from {point} to {moved}"
        assert move.inverse() in space.legal_moves(moved) or isinstance(move, SketchMove)
        assert move.inverse().apply(moved) == point


@given(seed=st.integers(0, 2**32 - 1))
@reuses_fixtures
def test_a_factor_move_conserves_the_product_of_its_tile(seed: int, tiny_space: Space) -> None:
    point = tiny_space.sample(np.random.default_rng(seed))
    knobs = tiny_space.sketches[point.sketch].knobs
    for move in tiny_space.legal_moves(point):
        if isinstance(move, FactorMove):
            knob = knobs[move.knob]
            part = move.apply(point).values[knob.start : knob.start + knob.width]
            assert np.prod(part) == 32


def test_sampling_reaches_every_factorisation_of_a_tile(space_of: SpaceOf) -> None:
    space = space_of("gmm:1x12x20x6")
    tile = next(tile for tile in space.sketches[0].tiles() if tile.extent == 12)
    rng = np.random.default_rng(0)
    drawn = {tile.sample(rng) for _ in range(2000)}
    assert tile.count() == len(drawn) == 40
    assert all(tile.is_legal(factors) for factors in drawn)


@pytest.mark.parametrize("spec", [pytest.param("nrm:1x4x4", marks=pytest.mark.slow), "gmm:1x1x2x1"])
def test_moves_reach_every_point_of_a_small_space(spec: str, space_of: SpaceOf) -> None:
    space = space_of(spec)
    found = reachable(space, 10_000)
    rng = np.random.default_rng(0)
    sampled = {space.sample(rng) for _ in range(20_000 if spec.startswith("gmm") else 4000)}
    assert len(found) < 10_000
    assert sampled <= found.keys()
    # All of them, not only those drawn: locations left out, the size is known in closed form.
    free = {
        (point.sketch, *(v for i, v in enumerate(point.values) if i not in placed(space, point)))
        for point in found
    }
    assert len(free) == space.size()


def placed(space: Space, point: Point) -> set[int]:
    return {knob.start for knob in space.sketches[point.sketch].locations()}


@pytest.mark.parametrize("spec", SMALL)
def test_the_default_point_of_every_sketch_is_legal_and_applies(
    spec: str, space_of: SpaceOf
) -> None:
    space = space_of(spec)
    for sketch in space.sketches:
        assert space.is_legal(space.default(sketch.index))
        space.apply(space.default(sketch.index))


# -- compute locations ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec", ["c2d:1x8x8x4x6x3x1x1", "tbg:1x8x2x6", "sfm:8x12", "cbr:1x8x8x4x6x3x1x1", "nrm:1x12x20"]
)
def test_the_compute_locations_that_the_space_allows_are_those_that_tvm_keeps(
    spec: str, space_of: SpaceOf
) -> None:
    space = space_of(spec)
    rng = np.random.default_rng(0)
    points = [space.sample(rng) for _ in range(12)]
    points += [neighbours[-1] for point in points[:4] if (neighbours := space.neighbours(point))]
    compared = 0
    for point in points:
        sketch = space.sketches[point.sketch]
        for knob in sketch.locations():
            allowed = space._locations.candidates(sketch, knob, point.values)
            assert allowed == space._locations.probe(sketch, knob, point.values), (
                f"{knob.name} at {point}"
            )
            compared += 1
    assert compared >= len(points)


# -- canonical forms --------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [pytest.param("gmm:1x1x2x1", marks=pytest.mark.slow), "nrm:1x4x4"])
def test_points_of_one_canonical_form_and_only_those_have_equal_programs(
    spec: str, space_of: SpaceOf, capsys: pytest.CaptureFixture[str]
) -> None:
    space = space_of(spec)
    points = list(reachable(space, 10_000))
    programs: dict[str, object] = {}
    for point in points:
        form = space.canonical(point)
        try:
            program = space.apply(point).mod
        except ConstraintError:
            assert form == f"refused {point}"
            continue
        known = programs.setdefault(form, program)
        assert tvm_ffi.structural_equal(known, program), f"{point} shares {form} wrongly"
    forms = list(programs)
    rng = np.random.default_rng(0)
    for _ in range(3000):
        one, other = rng.choice(len(forms), 2, replace=False)
        assert not tvm_ffi.structural_equal(programs[forms[one]], programs[forms[other]])
    with capsys.disabled():
        print(f"\n{spec}: {len(points)} points, {len(programs)} programs")
    assert 1 < len(programs) < len(points)


OTHER_PROCESS = """
import json, sys
from schedenv import hardware
from schedenv.space import Point, Space
from schedenv.tasks import resolve

points = json.loads(sys.argv[1])
print(json.dumps({
    spec: [Space(resolve(spec).mod, hardware.detect()).canonical(Point.parse(t)) for t in texts]
    for spec, texts in points.items()
}))
"""


def test_a_point_has_the_same_program_in_another_process(space_of: SpaceOf) -> None:
    rng = np.random.default_rng(0)
    specs = ["gmm:1x12x20x6", "c2d:1x8x8x4x6x3x1x1", "sfm:8x12", "nrm:1x12x20"]
    points = {spec: [space_of(spec).sample(rng) for _ in range(4)] for spec in specs}
    texts = {spec: [str(point) for point in drawn] for spec, drawn in points.items()}
    done = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS, json.dumps(texts)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    here = {spec: [space_of(spec).canonical(p) for p in drawn] for spec, drawn in points.items()}
    assert json.loads(done.stdout) == here


# -- annotations ------------------------------------------------------------------------------


def annotation(space: Space, point: Point, role: str) -> list[int]:
    """The values of one annotation in the trace that applying the point leaves."""
    return [
        int(inst.inputs[1])
        for inst in space.apply(point).trace.insts
        if inst.kind.name == "Annotate" and str(inst.attrs[0]) == f"meta_schedule.{role}"
    ]


@pytest.mark.parametrize("spec", ["gmm:1x32x32x32", "nrm:1x12x20", "sfm:8x12"])
@pytest.mark.parametrize("role", ["parallel", "vectorize"])
def test_an_annotation_can_be_off_stock_or_any_value_of_its_menu(
    spec: str, role: str, space_of: SpaceOf
) -> None:
    space = space_of(spec)
    for sketch in space.sketches:
        knobs = [knob for knob in sketch.choices() if knob.role == role]
        assert knobs, f"sketch {sketch.index} has no {role}"
        for knob in knobs:
            assert 0 in knob.choices
            assert knob.choices[knob.stock] > 0
            default = space.default(sketch.index)
            for index, amount in enumerate(knob.choices):
                values = list(default.values)
                values[knob.start] = index
                found = annotation(space, Point(sketch.index, tuple(values)), role)
                assert found == ([amount] if amount else [])


# -- what is refused --------------------------------------------------------------------------


def replaced(point: Point, slot: int, *values: int) -> Point:
    return Point(point.sketch, (*point.values[:slot], *values, *point.values[slot + len(values) :]))


def test_an_illegal_point_is_explained(tiny_space: Space) -> None:
    good = tiny_space.default()
    unroll = next(knob for knob in tiny_space.sketches[0].knobs if knob.name == "unroll")

    def explain(point: Point) -> str | None:
        assert tiny_space.is_legal(point) == (tiny_space.explain_illegal(point) is None)
        return tiny_space.explain_illegal(point)

    assert explain(good) is None
    assert explain(Point(3, good.values)) == "expected a sketch from 0 to 2, got 3"
    assert explain(Point(-1, ())) == "expected a sketch from 0 to 2, got -1"
    assert explain(Point(0, (1, 2))) == f"expected {len(good.values)} values, got 2"
    assert explain(replaced(good, 4, 16)) == "Z.v_i: [16, 1, 1, 1] is not one of its 56 values"
    assert explain(replaced(good, 4, 0)) == "Z.v_i: [0, 1, 1, 1] is not one of its 56 values"
    assert (
        explain(replaced(good, 4, -32, -1)) == "Z.v_i: [-32, -1, 1, 1] is not one of its 56 values"
    )
    assert explain(replaced(good, unroll.start, 4)) == "unroll: [4] is not one of its 4 values"
    assert explain(replaced(good, unroll.start, -1)) == "unroll: [-1] is not one of its 4 values"


def test_too_large_an_innermost_factor_is_explained(space_of: SpaceOf) -> None:
    space = space_of("gmm:1x128x128x128")
    point = replaced(space.default(), 4, 1, 1, 1, 128)
    # 120 factorisations of 2**7 into four, less the one whose innermost factor is above 64.
    expected = "Z.v_i: [1, 1, 1, 128] is not one of its 119 values"
    assert space.explain_illegal(point) == expected
    assert space.is_legal(replaced(point, 4, 1, 1, 2, 64))


def test_an_illegal_compute_location_is_explained(space_of: SpaceOf) -> None:
    space = space_of("nrm:1x12x20")
    knob = next(space.sketches[0].locations())
    point = replaced(space.default(), knob.start, 77)
    allowed = list(space._locations.probe(space.sketches[0], knob, space.default().values))
    assert space.explain_illegal(point) == f"{knob.name}: expected one of {allowed}, got 77"
    assert isinstance(knob, LocationKnob)


def test_applying_an_illegal_location_says_what_tvm_made_of_it(space_of: SpaceOf) -> None:
    space = space_of("nrm:1x12x20")
    knob = next(space.sketches[0].locations())
    point = replaced(space.default(), knob.start, 77)
    with pytest.raises(IllegalPointError, match=f"^TVM changed {point} to 0:"):
        space.apply(point)


def test_a_move_that_does_not_fit_its_point_is_refused(tiny_space: Space) -> None:
    point = tiny_space.default()
    with pytest.raises(IllegalPointError) as factor:
        FactorMove(1, 4, 5, 3).apply(point)
    assert str(factor.value) == "cannot take the factor 3 from slot 4 that holds 32"
    with pytest.raises(IllegalPointError) as setting:
        SetMove(6, 16, 3, 1).apply(point)
    assert str(setting.value) == "expected 3 in slot 16, found 0"
    other = tiny_space.default(1)
    with pytest.raises(IllegalPointError) as sketch:
        SketchMove(other, point).apply(point)
    assert str(sketch.value) == f"this move starts from {other}, not from {point}"
    assert not tiny_space.is_legal_move(point, FactorMove(1, 4, 5, 3))
    assert not tiny_space.is_legal_move(point, SketchMove(other, point))


@pytest.mark.parametrize("text", ["", "1", "a:1,2", "0:1,x", "0;1", ":1"])
def test_text_that_is_no_point_is_refused(text: str) -> None:
    with pytest.raises(
        IllegalPointError, match=r"^expected a point as 'sketch:value,value,\.\.\.', "
    ):
        Point.parse(text)


def test_a_tile_with_a_prime_extent_can_still_be_moved_about(space_of: SpaceOf) -> None:
    space = space_of("gmm:1x7x13x1")
    moves = [m for m in space.legal_moves(space.default()) if isinstance(m, FactorMove)]
    assert {move.factor for move in moves} == {7, 13}
