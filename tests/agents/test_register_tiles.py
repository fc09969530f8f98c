"""The agent whose first storm is drafted."""

import math
from collections.abc import Callable

from schedenv_agents.greedy_local import RegisterTileAgent

from schedenv.hardware import Hardware
from schedenv.space import Space
from schedenv.space.draft import accumulators, is_tiled

from .landscape import judged


def test_the_first_storm_is_drafted_and_later_ones_are_not(
    space_of: Callable[[str], Space], hardware: Hardware
) -> None:
    space = space_of("gmm:1x64x96x128")
    lanes = hardware.vector_lanes("float32")
    agent = RegisterTileAgent(space, 0)
    asked = agent.ask(8)
    for point in asked:
        tiles = space.sketches[point.sketch].tiles()
        inner = [point.values[t.start + t.width - 1] for t in tiles if not t.is_reduction]
        assert math.prod(inner) <= accumulators(lanes) * lanes
        assert is_tiled(space.sketches[point.sketch])
    agent.tell([judged(point, 1e-6) for point in asked])
    assert not set(asked) & set(agent.ask(8))


def test_spaces_without_tiles_are_drawn_uniformly(space_of: Callable[[str], Space]) -> None:
    space = space_of("sfm:8x32")
    assert all(space.is_legal(point) for point in RegisterTileAgent(space, 0).ask(16))
