"""The thirteen operator families of the Ansor lineage, as data.

The programs are TVM's own definitions, called and not copied; the geometry (`layouts`) and the
references (`references`) are independent of them. Floating-point operations are TVM's count,
which for products and convolutions is the textbook 2 a multiply-add, products with padding
included, except for `t2d`; see `layouts.transposed`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from schedenv import tvm_adapter
from schedenv.errors import InputError, ShapeError
from schedenv.tasks import layouts
from schedenv.tasks.memory import check_memory
from schedenv.tasks.task import Array, Task, traffic_bytes
from schedenv.tvm_adapter import Argument

DTYPES = ("float32", "float64")
MAX_EXTENT = 2**20
"""Largest value of any parameter."""
MAX_ELEMENTS = 2**31 - 1
"""Largest number of elements of one buffer: TVM computes offsets in int32."""
_MAX_DIGITS = 18


@dataclass(frozen=True)
class Parameter:
    """One number of a shape string.

    Attributes:
        name: Its name in tables and messages.
        minimum: The smallest value that makes sense.
        default: The value used when it is left out; None if it must be given.
    """

    name: str
    minimum: int = 1
    default: int | None = None


@dataclass(frozen=True)
class Operator:
    """One operator family.

    Attributes:
        name: The family's name, such as `gmm`.
        title: What it is, in a few words.
        parameters: The numbers of a shape string, in order; optional ones last.
        te_name: Name of TVM's definition, which takes the parameters in the same order.
        layout: Shapes and counts from the parameters.
        reference: The numpy reference; takes the inputs and the keywords of `reference_keywords`.
        suite: Shape strings of the Ansor-lineage suite, by index.
        default: The shape string that the bare name stands for: a millisecond or less.
        reference_keywords: From a keyword of `reference` to the parameter that it takes.
        has_dtype: Whether TVM's definition lets the dtype be chosen; float32 only otherwise.
    """

    name: str
    title: str
    parameters: tuple[Parameter, ...]
    te_name: str
    layout: layouts.LayoutFunction
    reference: Callable[..., list[Array]]
    suite: tuple[str, ...]
    default: str
    reference_keywords: tuple[tuple[str, str], ...] = ()
    has_dtype: bool = True

    @property
    def signature(self) -> str:
        """The parameters as a pattern, optional ones in brackets: `NxLxCIxCOxKxSxP[xdilation]`."""
        required = "x".join(p.name for p in self.parameters if p.default is None)
        optional = [p.name for p in self.parameters if p.default is not None]
        return required + "".join(f"[x{name}" for name in optional) + "]" * len(optional)

    def parse(self, shape: str) -> dict[str, int]:
        """Read a shape string.

        Args:
            shape: Numbers joined by `x`, in the order of `parameters`.

        Returns:
            Every parameter's value by name, defaults filled in.

        Raises:
            ShapeError: Malformed, too few or too many numbers, or one below its minimum.
        """
        words = shape.split("x")
        required = sum(parameter.default is None for parameter in self.parameters)
        most = len(self.parameters)
        if not required <= len(words) <= most:
            wanted = str(required) if required == most else f"{required} to {most}"
            raise self._shape_error(shape, f"expected {wanted} numbers, got {len(words)}")
        values = {}
        for index, parameter in enumerate(self.parameters):
            if index >= len(words):
                assert parameter.default is not None  # the count of words was checked
                values[parameter.name] = parameter.default
                continue
            word = words[index]
            legal = word.isascii() and word.isdigit() and len(word) <= _MAX_DIGITS
            if not legal or int(word) < parameter.minimum:
                kind = "a positive integer" if parameter.minimum else "a non-negative integer"
                raise self._shape_error(shape, f"{parameter.name} must be {kind}, got {word!r}")
            values[parameter.name] = int(word)
        return values

    def plan(self, shape: str, dtype: str = "float32") -> layouts.Layout:
        """Check a shape without building or allocating anything.

        Args:
            shape: A shape string.
            dtype: The element type of all buffers.

        Returns:
            The geometry that the shape implies.

        Raises:
            ShapeError: The shape is malformed, contradicts itself, or exceeds `MAX_EXTENT` or
                `MAX_ELEMENTS`.
            MemoryLimitError: The buffers do not fit in memory.
            InputError: The dtype is unknown, or not available for this operator.
        """
        self._check_dtype(dtype)
        values = self.parse(shape)
        try:
            layout = self.layout(values)
        except ValueError as error:
            raise self._shape_error(shape, str(error)) from None
        arguments = [Argument("input", extents, dtype, False) for extents in layout.inputs]
        arguments.append(Argument("output", layout.output, dtype, True))
        # Memory first: it is the more telling message for a shape that is absurd in both ways.
        check_memory(f"{self.name}:{shape}", arguments, scratch_elements=layout.scratch_elements)
        for name, value in values.items():
            if value > MAX_EXTENT:
                raise self._shape_error(shape, f"{name} must be at most {MAX_EXTENT}, got {value}")
        largest = max(layout.scratch_elements, *(math.prod(a.shape) for a in arguments))
        if largest > MAX_ELEMENTS:
            raise self._shape_error(
                shape, f"a buffer would have {largest} elements, more than {MAX_ELEMENTS}"
            )
        return layout

    def task(self, shape: str | None = None, dtype: str = "float32", name: str = "") -> Task:
        """Build the task of one shape.

        Args:
            shape: A shape string; None for the default shape.
            dtype: The element type of all buffers, float32 or float64. `cbr` keeps its three
                vectors a channel in float32, as TVM defines it.
            name: Name for people; the spec if empty.

        Raises:
            ShapeError, MemoryLimitError, InputError: As `plan`.
        """
        shape = self.default if shape is None else shape
        layout = self.plan(shape, dtype)
        values = self.parse(shape)
        define = getattr(tvm_adapter.ansor_operators(), self.te_name)
        dtypes = {"in_dtype": dtype, "out_dtype": dtype} if self.has_dtype else {}
        mod = tvm_adapter.module_from_tensors(define(*values.values(), **dtypes))
        arguments = tvm_adapter.arguments(mod)
        keywords = {keyword: values[source] for keyword, source in self.reference_keywords}
        spec = self.spec(values, dtype)
        return Task(
            spec=spec,
            name=name or spec,
            family=self.name,
            mod=mod,
            arguments=arguments,
            flops=tvm_adapter.count_flops(mod) if layout.flops is None else layout.flops,
            bytes=traffic_bytes(arguments),
            reduction_length=layout.reduction_length,
            reference=functools.partial(self.reference, **keywords),
        )

    def spec(self, values: Mapping[str, int], dtype: str = "float32") -> str:
        """The shortest TASK string for these parameter values."""
        words = [str(values[parameter.name]) for parameter in self.parameters]
        for parameter in reversed(self.parameters):
            if parameter.default is None or values[parameter.name] != parameter.default:
                break
            words.pop()
        suffix = "" if dtype == DTYPES[0] else f"@{dtype}"
        return f"{self.name}:{'x'.join(words)}{suffix}"

    def _check_dtype(self, dtype: str) -> None:
        if dtype not in DTYPES:
            raise InputError(
                f"unsupported dtype {dtype!r} for {self.name}; expected "
                f"{' or '.join(DTYPES)}, as in '{self.name}:{self.default}@{DTYPES[0]}'"
            )
        if dtype != DTYPES[0] and not self.has_dtype:
            raise InputError(
                f"{self.name} exists in {DTYPES[0]} only, because TVM's definition fixes it; "
                f"got {dtype!r}; leave out '@{dtype}'"
            )

    def _shape_error(self, shape: str, reason: str) -> ShapeError:
        return ShapeError(
            f"bad shape {shape!r} for {self.name}: {reason}; "
            f"expected {self.name}:{self.signature}, for example '{self.name}:{self.default}'"
        )
