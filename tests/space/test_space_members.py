"""The promises of a space, kept on every member of the suites `ansor` and `odd`."""

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from schedenv.errors import ConstraintError
from schedenv.space import Point, Space
from schedenv.tasks import members

MEMBERS = [*members("ansor"), *members("odd")]


@pytest.fixture(scope="module")
def tally(request: pytest.FixtureRequest) -> Iterator[Counter[str]]:
    """Counts what was tried; printed when the module is done."""
    counts: Counter[str] = Counter()
    yield counts
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(f"\n{request.module.__name__}: " + ", ".join(f"{n} {k}" for k, n in counts.items()))


def check_member(
    space: Space, rng: np.random.Generator, points: int, moves: int, tally: Counter[str]
) -> None:
    """Sample points and random walks from them; every step must keep every promise."""
    refused = 0
    tried = []
    for _ in range(points):
        point = space.sample(rng)
        assert space.explain_illegal(point) is None
        refused += not applies(space, point)
        tried.append(point)
        for _ in range(moves):
            options = space.legal_moves(point)
            move = options[int(rng.integers(len(options)))]
            moved = move.apply(point)
            assert moved != point
            assert space.explain_illegal(moved) is None
            assert move.inverse().apply(moved) == point
            assert space.is_legal_move(moved, move.inverse())
            tally["moves"] += 1
            point = moved
        if moves:
            refused += not applies(space, point)
            tried.append(point)
    assert space.decode(space.encode(tried)) == tried
    assert [Point.parse(str(point)) for point in tried] == tried
    tally["points"] += len(tried)
    tally["refused"] += refused


def applies(space: Space, point: Point) -> bool:
    """Whether TVM accepts the point; that it changes it is an IllegalPointError and fails."""
    try:
        space.apply(point)
    except ConstraintError:
        return False
    return True


@pytest.mark.parametrize("member", MEMBERS)
def test_a_walk_from_a_random_point_stays_in_the_space(
    member: str, space_of: Callable[[str], Space], tally: Counter[str]
) -> None:
    rng = np.random.default_rng(MEMBERS.index(member))
    check_member(space_of(member), rng, points=1, moves=2, tally=tally)


@pytest.mark.slow
@pytest.mark.parametrize("member", MEMBERS)
def test_many_walks_from_random_points_stay_in_the_space(
    member: str, space_of: Callable[[str], Space], tally: Counter[str]
) -> None:
    space = space_of(member)
    asks_tvm = any(list(sketch.locations()) for sketch in space.sketches)
    rng = np.random.default_rng(1000 + MEMBERS.index(member))
    check_member(space, rng, points=8 if asks_tvm else 100, moves=4, tally=tally)
