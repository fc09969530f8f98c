"""Choose how a space is batched."""

from __future__ import annotations

from schedenv.errors import InputError
from schedenv.space.batch import BatchSpace
from schedenv.space.batch_part import BatchPart
from schedenv.space.batch_whole import BatchWhole
from schedenv.space.search_space import SearchSpace
from schedenv.space.space import Space
from schedenv.space.subspace import SubSpace


def batch_space(space: SearchSpace) -> BatchSpace:
    """The batched form of a space.

    Raises:
        InputError: It is neither a `Space` nor a `SubSpace`.
    """
    if isinstance(space, Space):
        return BatchWhole(space)
    if isinstance(space, SubSpace):
        return BatchPart(space)
    raise InputError(f"expected a Space or a SubSpace, got {type(space).__name__}")
