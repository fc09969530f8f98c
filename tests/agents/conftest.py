"""Spaces for agents."""

import pytest

from schedenv.space import Space


@pytest.fixture(scope="module")
def one_width_space(tiny_space: Space) -> Space:
    """A space whose sketches have the same slots, so that distances are defined."""
    assert len({sketch.width for sketch in tiny_space.sketches}) == 1
    return tiny_space
