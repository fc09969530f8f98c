"""Suites of tasks, as data. A member is written `suite/member`, such as `core/gmm-2`."""

from __future__ import annotations

from types import MappingProxyType

from schedenv.errors import UnknownNameError
from schedenv.tasks.families import OPERATORS

_ANSOR = {
    f"{operator.name}-{index}": f"{operator.name}:{shape}"
    for operator in OPERATORS.values()
    for index, shape in enumerate(operator.suite)
}

# Tens of microseconds to a few milliseconds on two cores. The list is known as "core 12", yet it
# names thirteen shapes; all thirteen are kept. Member names are those of `ansor`.
_CORE = (
    *("gmm-0", "gmm-2", "c1d-2", "c2d-1", "c2d-3", "dep-2", "grp-3"),
    *("t2d-0", "cap-3", "nrm-2", "sfm-1", "cbr-3", "tbg-0"),
)

# Prime or otherwise awkward extents: few tile factors, remainders at every vector width.
_ODD = {
    "gmm-0": "gmm:1x127x127x127",
    "gmm-1": "gmm:1x509x509x509",
    "gmm-2": "gmm:1x1021x1021x1021",
    "c1d-0": "c1d:1x197x61x127x3x1x1",
    "c2d-0": "c2d:1x27x27x17x31x3x1x1",
    "c2d-1": "c2d:1x13x13x61x127x3x1x1",
    "c3d-0": "c3d:1x5x13x13x17x31x3x1x1",
    "grp-0": "grp:1x27x27x28x52x3x1x1",
    "dil-0": "dil:1x27x27x17x31x3x1x2",
    "dep-0": "dep:1x29x29x67x3x1x1",
    "t2d-0": "t2d:1x7x7x61x31x4x2x1",
    "cap-0": "cap:1x9x9x7x11x3x1x1",
    "nrm-0": "nrm:1x197x331",
    "sfm-0": "sfm:197x197",
    "cbr-0": "cbr:1x13x13x61x127x3x1x1",
    "tbg-0": "tbg:1x197x3x61",
}

SUITES = MappingProxyType(
    {
        "ansor": MappingProxyType(_ANSOR),
        "core": MappingProxyType({member: _ANSOR[member] for member in _CORE}),
        "odd": MappingProxyType(_ODD),
    }
)
"""Suite name, then member name, to the spec of an operator with its shape."""


def suite_names() -> tuple[str, ...]:
    """Names of all suites."""
    return tuple(SUITES)


def members(suite: str) -> tuple[str, ...]:
    """TASK strings of a suite's members, such as `core/gmm-2`, in the suite's order.

    Raises:
        UnknownNameError: There is no such suite.
    """
    if suite not in SUITES:
        raise UnknownNameError("suite", suite, SUITES)
    return tuple(f"{suite}/{member}" for member in SUITES[suite])


def member_spec(suite: str, member: str) -> str:
    """The spec, operator with shape, that a suite's member stands for.

    Raises:
        UnknownNameError: There is no such suite, or it has no such member.
    """
    if suite not in SUITES:
        raise UnknownNameError("suite", suite, SUITES)
    if member not in SUITES[suite]:
        raise UnknownNameError(f"{suite} member", member, SUITES[suite])
    return SUITES[suite][member]
