"""The typed knobs of a sketch: what each one may be set to, without asking TVM.

Compute locations are the exception: which loops a block may move into depends on the rest of the
point, so their values come from `schedenv.space.locations`.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np


@dataclass(frozen=True)
class TileKnob:
    """A perfect tiling of one loop: factors, outermost first, whose product is the extent.

    Attributes:
        name: `block.axis`.
        instruction: Index of the SamplePerfectTile instruction in the sketch's trace.
        start: First slot of the knob in a point's values.
        width: Number of slots, one a loop level.
        extent: Product of the factors.
        innermost_limit: Largest factor that the innermost level may have.
        is_reduction: Whether the loop is a reduction.
    """

    kind: ClassVar[str] = "tile"
    name: str
    instruction: int
    start: int
    width: int
    extent: int
    innermost_limit: int
    is_reduction: bool

    def is_legal(self, factors: tuple[int, ...]) -> bool:
        """Whether TVM keeps these factors as they are, and stock MetaSchedule could sample them."""
        return (
            all(factor >= 1 for factor in factors)
            and math.prod(factors) == self.extent
            and factors[-1] <= self.innermost_limit
        )

    def default(self) -> tuple[int, ...]:
        """The whole extent in the outermost level."""
        return (self.extent, *(1,) * (self.width - 1))

    def sample(self, rng: np.random.Generator) -> tuple[int, ...]:
        """Draw uniformly from all legal factorisations.

        For each prime of multiplicity m, a composition of m into `width` parts is drawn uniformly
        (stars and bars); tilings with too large an innermost factor are rejected, as in TVM's
        SamplePerfectTile (src/s_tir/schedule/primitive/sampling.cc).
        """
        while True:
            factors = [1] * self.width
            for prime, multiplicity in factorise(self.extent):
                bars = np.sort(
                    rng.choice(multiplicity + self.width - 1, self.width - 1, replace=False)
                )
                edges = [-1, *(int(bar) for bar in bars), multiplicity + self.width - 1]
                for slot in range(self.width):
                    factors[slot] *= prime ** (edges[slot + 1] - edges[slot] - 1)
            if factors[-1] <= self.innermost_limit:
                return tuple(factors)

    def count(self) -> int:
        """How many legal factorisations there are."""
        outer = self.width - 1
        return sum(
            _compositions(self.extent // innermost, outer)
            for innermost in divisors(self.extent)
            if innermost <= self.innermost_limit
        )


Role = Literal["unroll", "parallel", "vectorize"]


@dataclass(frozen=True)
class ChoiceKnob:
    """One of a fixed list of annotation values; the slot holds the index into the list.

    Attributes:
        role: `unroll` (a SampleCategorical decision), `parallel` or `vectorize` (annotations that
            stock MetaSchedule fixes).
        instruction: Index of the SampleCategorical (unroll) or Annotate instruction.
        start: Slot of the knob in a point's values.
        choices: The annotation's values, ascending. For `parallel` and `vectorize`, 0 means that
            the annotation is left out. For `parallel`, n fuses outer loops until their product
            exceeds n; for `vectorize`, n is the longest vector that inner loops are fused into.
        stock: Index of the value that stock MetaSchedule uses (the first one for `unroll`).
    """

    kind: ClassVar[str] = "choice"
    width: ClassVar[int] = 1
    role: Role
    instruction: int
    start: int
    choices: tuple[int, ...]
    stock: int

    @property
    def name(self) -> str:
        """The role."""
        return self.role

    def is_legal(self, values: tuple[int, ...]) -> bool:
        """Whether the slot holds an index into `choices`."""
        return 0 <= values[0] < len(self.choices)

    def default(self) -> tuple[int, ...]:
        """The stock choice."""
        return (self.stock,)

    def sample(self, rng: np.random.Generator) -> tuple[int, ...]:
        """Draw uniformly from the choices."""
        return (int(rng.integers(len(self.choices))),)

    def count(self) -> int:
        """How many choices there are."""
        return len(self.choices)


INLINE = -2
ROOT = -1


@dataclass(frozen=True)
class LocationKnob:
    """Where a block is computed: -2 inlined, -1 at the root, else under that loop of its consumer.

    Attributes:
        name: `block@`.
        instruction: Index of the SampleComputeLocation instruction in the sketch's trace.
        start: Slot of the knob in a point's values.
    """

    kind: ClassVar[str] = "location"
    width: ClassVar[int] = 1
    name: str
    instruction: int
    start: int

    def default(self) -> tuple[int, ...]:
        """At the root, which is always legal."""
        return (ROOT,)


Knob = TileKnob | ChoiceKnob | LocationKnob


@functools.lru_cache(maxsize=4096)
def factorise(number: int) -> tuple[tuple[int, int], ...]:
    """Prime factors with their multiplicities, ascending."""
    found = []
    prime = 2
    while prime * prime <= number:
        multiplicity = 0
        while number % prime == 0:
            number //= prime
            multiplicity += 1
        if multiplicity:
            found.append((prime, multiplicity))
        prime += 1
    if number > 1:
        found.append((number, 1))
    return tuple(found)


def primes_of(number: int) -> tuple[int, ...]:
    """The distinct primes that divide `number`, ascending."""
    return tuple(prime for prime, _ in factorise(number))


def divisors(number: int) -> list[int]:
    """All divisors, ascending."""
    found = [1]
    for prime, multiplicity in factorise(number):
        found = [d * prime**power for d in found for power in range(multiplicity + 1)]
    return sorted(found)


def _compositions(number: int, slots: int) -> int:
    """In how many ways `number` is an ordered product of `slots` factors."""
    return math.prod(
        math.comb(multiplicity + slots - 1, slots - 1) for _, multiplicity in factorise(number)
    )
