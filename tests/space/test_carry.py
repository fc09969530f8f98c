"""Points carried to programs like theirs: as they were where that is possible, always legal."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from schedenv.space import Point, Space
from schedenv.space.carry import carried, distance


@pytest.mark.parametrize("spec", ["gmm:1x64x96x128", "cbr:1x14x14x16x40x3x1x1", "sfm:64x64"])
def test_a_point_carried_to_its_own_space_is_itself(
    space_of: Callable[[str], Space], spec: str
) -> None:
    space = space_of(spec)
    rng = np.random.default_rng(0)
    for _ in range(40):
        point = space.sample(rng)
        same = carried(point, space.sketches[point.sketch], space)
        assert same is not None
        assert space.canonical(same) == space.canonical(point)


def test_a_point_carried_to_other_extents_is_legal_and_comes_back(
    space_of: Callable[[str], Space],
) -> None:
    small, large = space_of("cbr:1x14x14x16x40x3x1x1"), space_of("cbr:1x28x28x32x80x3x1x1")
    rng = np.random.default_rng(0)
    came_back = 0
    for _ in range(40):
        point = small.sample(rng)
        there = carried(point, small.sketches[point.sketch], large)
        assert there is not None
        assert large.explain_illegal(there) is None
        came_back += carried(there, large.sketches[there.sketch], small) == point
    assert came_back >= 20


def test_inner_factors_are_kept_and_the_outermost_takes_the_rest(
    space_of: Callable[[str], Space],
) -> None:
    small, large = space_of("gmm:1x64x64x64"), space_of("gmm:1x96x48x128")
    sketch = small.sketches[0]
    _, rows, columns, depth = sketch.tiles()
    values = list(small.default(0).values)
    values[rows.start : rows.start + rows.width] = [2, 2, 2, 8]
    values[columns.start : columns.start + columns.width] = [1, 2, 1, 32]
    values[depth.start : depth.start + depth.width] = [4, 16]
    there = carried(Point(0, tuple(values)), sketch, large)
    assert there is not None
    _, rows, columns, depth = large.sketches[there.sketch].tiles()
    assert there.values[rows.start : rows.start + rows.width] == (3, 2, 2, 8)
    # 32 does not divide 48; 48 itself is whole vectors, 24 is not.
    assert there.values[columns.start : columns.start + columns.width] == (1, 1, 1, 48)
    assert there.values[depth.start : depth.start + depth.width] == (8, 16)


def test_a_program_of_other_loops_gets_nothing(space_of: Callable[[str], Space]) -> None:
    matmul, conv = space_of("gmm:1x64x64x64"), space_of("cbr:1x14x14x16x40x3x1x1")
    point = matmul.default(0)
    assert carried(point, matmul.sketches[0], conv) is None


def test_programs_are_as_far_apart_as_their_extents(space_of: Callable[[str], Space]) -> None:
    matmul, twice = space_of("gmm:1x64x64x64").sketches[0], space_of("gmm:1x96x48x128").sketches[0]
    conv = space_of("cbr:1x14x14x16x40x3x1x1").sketches[0]
    assert distance(matmul, matmul) == 0
    assert distance(matmul, twice) == distance(twice, matmul)
    assert 0 < distance(matmul, twice) < distance(matmul, conv)
