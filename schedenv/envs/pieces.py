"""The pieces that an observation of `Edit-v0` is put together from, by name.

| piece | keys | what it says |
|---|---|---|
| `knobs` | `knobs`, `knob_mask`, `sketch` | the values of the point's knobs |
| `task` | `task` | what is scheduled |
| `hardware` | `hardware` | the machine |
| `progress` | `progress` | steps left, and how fast the points are |
| `stores` | `stores`, `store_mask` | TVM's features of the program; a TVM call a point |

`schedenv.envs.observations.KnobObservation` describes the keys of the first four, which are the
default, and `schedenv.envs.store_observation.StoreObservation` those of the last one.

Example:
    >>> chosen_pieces(["task", "knobs"]), chosen_pieces("stores")
    (('knobs', 'task'), ('stores',))
    >>> keys_of(("knobs", "task"))
    ('knobs', 'knob_mask', 'sketch', 'task')
"""

from __future__ import annotations

from collections.abc import Sequence

from schedenv.errors import InputError

PIECES = {
    "knobs": ("knobs", "knob_mask", "sketch"),
    "task": ("task",),
    "hardware": ("hardware",),
    "progress": ("progress",),
    "stores": ("stores", "store_mask"),
}
STORES = "stores"
DEFAULT = ("knobs", "task", "hardware", "progress")


def chosen_pieces(names: str | Sequence[str] | None) -> tuple[str, ...]:
    """Read the argument `observation`.

    Args:
        names: One piece or several, in any order; None for `DEFAULT`.

    Returns:
        The pieces, each once, in the order of `PIECES`.

    Raises:
        InputError: There is none, or one that does not exist.
    """
    if names is None:
        return DEFAULT
    wanted = [names] if isinstance(names, str) else list(names)
    if not wanted or not set(wanted) <= set(PIECES):
        raise InputError(f"expected observation to name some of {', '.join(PIECES)}; got {names!r}")
    return tuple(piece for piece in PIECES if piece in wanted)


def keys_of(pieces: Sequence[str]) -> tuple[str, ...]:
    """The keys of the observation that pieces make."""
    return tuple(key for piece in pieces for key in PIECES[piece])


def batched_pieces(names: str | Sequence[str] | None) -> tuple[str, ...]:
    """The same for the vector environment, which does not call TVM.

    Raises:
        InputError: As `chosen_pieces`, or there is `stores` among them.
    """
    pieces = chosen_pieces(names)
    if STORES in pieces:
        raise InputError(
            "the observation's piece 'stores' takes a TVM call for every point, and the vector "
            "environment makes none; use gymnasium.make, or leave 'stores' out of observation=..."
        )
    return pieces
