"""Drafted points: legal, and with an innermost tile that fits the vector registers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from schedenv.hardware import Hardware
from schedenv.measure.table_file import read_table, shipped_tables
from schedenv.space import Point, Space
from schedenv.space.draft import Drafter, draft, is_tiled
from schedenv.tasks import resolve


def inner_tile(space: Space, point: Point) -> list[int]:
    tiles = [tile for tile in space.sketches[point.sketch].tiles() if not tile.is_reduction]
    return [point.values[tile.start + tile.width - 1] for tile in tiles]


@pytest.mark.parametrize(
    "spec", ["gmm:1x64x96x128", "c2d:1x13x13x48x64x3x1x1", "cbr:1x14x14x16x40x3x1x1"]
)
@pytest.mark.parametrize(("vector_bits", "most"), [(512, 28), (256, 14), (128, 28)])
def test_drafts_are_legal_and_fill_registers(
    hardware: Hardware, spec: str, vector_bits: int, most: int
) -> None:
    space = Space(resolve(spec).mod, replace(hardware, vector_bits=vector_bits))
    rng, lanes = np.random.default_rng(0), vector_bits // 32
    for _ in range(30):
        sketch = space.sketches[int(rng.integers(len(space.sketches)))]
        point = draft(space, sketch, rng)
        assert space.explain_illegal(point) is None
        *rows, vector = inner_tile(space, point)
        assert vector % lanes == 0 or vector % (lanes // 2) == 0
        assert math.prod(rows) * math.ceil(vector / lanes) <= most


def test_an_extent_without_whole_vectors_takes_halves(space_of: Callable[[str], Space]) -> None:
    space = space_of("gmm:1x64x1000x64")
    rng = np.random.default_rng(0)
    sketch = space.sketches[1]
    vectors = {inner_tile(space, draft(space, sketch, rng))[-1] for _ in range(40)}
    assert 50 not in vectors
    assert 25 not in vectors


def test_a_drafter_avoids_what_is_known_as_long_as_it_can(
    space_of: Callable[[str], Space],
) -> None:
    space = space_of("gmm:1x64x96x128")
    drafter, rng = Drafter(space), np.random.default_rng(0)
    known: set[Point] = set()
    for _ in range(50):
        point = drafter.sample(rng, known)
        assert point not in known
        assert is_tiled(space.sketches[point.sketch])
        known.add(point)


def test_a_drafter_draws_uniformly_where_nothing_is_tiled(
    space_of: Callable[[str], Space],
) -> None:
    space = space_of("sfm:8x32")
    drawn = Drafter(space).sample(np.random.default_rng(1))
    assert drawn == space.sample(np.random.default_rng(1))


@pytest.mark.parametrize("name", sorted(shipped_tables()))
def test_a_recorded_table_is_drawn_from_as_well(name: str) -> None:
    pytest.importorskip("pyarrow")
    space = read_table(shipped_tables()[name]).space()
    drafter, rng = Drafter(space), np.random.default_rng(0)
    for _ in range(10):
        assert space.is_legal(drafter.sample(rng))


def test_a_table_without_drafts_is_drawn_uniformly_and_soon_no_longer_searched_for_them() -> None:
    space = read_table(shipped_tables()["cbr"]).space()
    drafter, rng = Drafter(space), np.random.default_rng(0)
    drafter.sample(rng)
    state = rng.bit_generator.state
    drawn = [drafter.sample(rng) for _ in range(8)]
    rng.bit_generator.state = state
    assert drawn == [space.sample(rng) for _ in range(8)]
