"""What tiles make of any program."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from schedenv_agents.tile_features import TileFeatures

from schedenv.space import Point, Space
from schedenv.space.draft import is_tiled

SpaceOf = Callable[[str], Space]


def feature(space: Space, name: str, point: Point) -> float:
    features = TileFeatures(space)
    return float(features.of([point])[0, features.names.index(name)])


def tiled(space: Space, **factors: tuple[int, ...]) -> Point:
    """A point of the first tiled sketch, plain but for the tiles of some axes."""
    sketch = next(sketch for sketch in space.sketches if is_tiled(sketch))
    values = list(space.default(sketch.index).values)
    for tile in sketch.tiles():
        chosen = factors.get(tile.name.rpartition(".")[2])
        if chosen is not None:
            values[tile.start : tile.start + tile.width] = chosen
    point = Point(sketch.index, tuple(values))
    assert space.explain_illegal(point) is None
    return point


REGISTERS = {"v_i": (2, 2, 2, 4), "v_j": (1, 2, 1, 16), "v_k": (4, 8)}


class TestAProductOf32:
    """With a tile of 4 by 16 in registers, 8 steps of its reduction, and 2 tiles inside."""

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("vector length", 4),
            ("rows", 2),
            ("reduction steps inside", 3),
            ("reduction steps outside", 2),
            ("tiles inside", 1),
            ("work 5", 6),
            ("work 4", 9),
            ("work 3", 10),
            ("first, tile", 2),
            ("last, tile", 4),
            ("write, tile", 6),
            # Rows of 16 floats are lines of 64 bytes; 4 rows of the left one share no line.
            ("bytes 5", np.log2(64 * (4 + 1 + 4) / 32768)),
            ("whole vectors", 1),
            ("lanes used", 1),
            ("operations a chunk", np.log2(32**3 / 2)),
        ],
    )  # fmt: skip
    def test_it_has(self, name: str, value: float, tiny_space: Space) -> None:
        if name == "bytes 5":
            l1_bytes = tiny_space.hardware.l1d_bytes or 32768
            value = float(np.log2(64 * (4 + 1 + 4) / l1_bytes))
        if name == "operations a chunk":
            # Two outer rows; the threads' share depends on what the annotation asks for.
            point = tiled(tiny_space, **REGISTERS)
            value = 15 - feature(tiny_space, "chunks", point)
        assert feature(tiny_space, name, tiled(tiny_space, **REGISTERS)) == pytest.approx(value)

    def test_accumulators_are_counted_in_vectors_of_the_machine(self, tiny_space: Space) -> None:
        lanes = tiny_space.hardware.vector_lanes("float32")
        vectors = 4 * np.ceil(16 / lanes)
        point = tiled(tiny_space, **REGISTERS)
        assert feature(tiny_space, "accumulators", point) == pytest.approx(np.log2(vectors))
        # A vector of the right matrix serves four rows; an element of the left one each.
        loads = (16 / lanes + 4) / vectors
        assert feature(tiny_space, "loads a multiply-add", point) == pytest.approx(np.log2(loads))


@given(seed=st.integers(0, 1000))
def test_they_are_numbers_and_do_not_depend_on_what_is_asked_with_it(
    seed: int, tiny_space: Space
) -> None:
    rng = np.random.default_rng(seed)
    points = [tiny_space.sample(rng) for _ in range(8)]
    features = TileFeatures(tiny_space)
    together = features.of(points)
    alone = np.concatenate([features.of([point]) for point in points])
    np.testing.assert_array_equal(together, alone)
    known = [is_tiled(tiny_space.sketches[point.sketch]) for point in points]
    assert np.isfinite(together).all(axis=1).tolist() == known


@pytest.mark.parametrize(
    "spec",
    ["c1d:1x16x8x16x3x2x1", "c3d:1x4x6x6x4x8x3x1x1", "grp:1x6x6x16x16x3x1x1", "cap:1x6x6x4x4x3x1x1",
     "cbr:1x6x6x8x16x3x1x1", "t2d:1x4x4x8x8x4x2x1", "tbg:1x16x2x16", "dil:1x8x8x4x8x3x1x1"],
)  # fmt: skip
def test_all_operators_have_the_same_features(
    spec: str, space_of: SpaceOf, tiny_space: Space
) -> None:
    space = space_of(spec)
    features = TileFeatures(space)
    assert features.names == TileFeatures(tiny_space).names
    rng = np.random.default_rng(0)
    points = [space.sample(rng) for _ in range(40)]
    points = [point for point in points if is_tiled(space.sketches[point.sketch])]
    assert points
    assert np.isfinite(features.of(points)).all()


def test_what_tiles_no_reduction_has_none(space_of: SpaceOf) -> None:
    space = space_of("sfm:16x16")
    features = TileFeatures(space)
    assert features.names == ()
    assert features.of([space.default()]).shape == (1, 0)
