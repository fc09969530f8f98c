"""Programs that `torch.export.save` wrote: read with suspicion, as `torch.export.load` does not.

A .pt2 file is an archive. `torch.export.load` unpickles parts of it without limits, loads compiled
libraries, calls any function below `torch`, `math` or `operator` that a node names, evaluates the
text of symbolic extents, and imports modules that a tree of inputs names: all ways to run a
stranger's code (torch 2.13, `torch/export/pt2_archive/_package.py`, `_export/serde/serialize.py`).
Programs of plain tensors and ATen operators need none of that. So the archive is checked first, by
lists of what is allowed, with torch's own reader; what is left is loaded.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from schedenv.errors import (
    MissingExtraError,
    MissingShapesError,
    NetworkFileError,
    SchedenvError,
    UnsupportedOperatorsError,
)
from schedenv.tasks.networks.source import check_operator_count, check_shapes, check_weights

_MODEL = "models/model.json"
_SAMPLES = "data/sample_inputs/model.pt"
_WEIGHTS = "data/weights/"
_CONSTANTS = "data/constants/"
_CONFIGS = (f"{_WEIGHTS}model_weights_config.json", f"{_CONSTANTS}model_constants_config.json")
_HARMLESS = {"archive_format", "archive_version", "version", "byteorder"}
_HARMLESS_FOLDERS = (".data/", ".format/", ".storage_alignment", "extra/")

_OPERATORS = re.compile(
    r"torch\.ops\.aten\.(?!from_file\b)\w+\.\w+"
    r"|torch\.sym_(int|float|max|min|not|ite|sum)"
    r"|_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|pow|neg|eq|ne|lt|le|gt|ge|and_|or_)"
)
_WORDS = {
    "Add", "Mul", "Pow", "Integer", "Rational", "Max", "Min", "FloorDiv", "CleanDiv", "CeilDiv",
    "Mod", "PythonMod", "ModularIndexing", "IntTrueDiv", "TruncToInt", "CeilToInt", "FloorToInt",
    "Eq", "Ne", "int_oo", "oo", "True", "False",
}  # fmt: skip
_SYMBOL = re.compile(r"Symbol\('[suz]+\d+'(, (positive|integer|nonnegative)=True)*\)")
_EXPRESSION = re.compile(r"[\w\s+\-*/()<>=,.&|~]*")
_TREES = {"builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"}


def load_program(path: Path, shapes: Mapping[str, Sequence[int]], limit_bytes: int) -> Any:
    """Read an exported program and check it.

    Args:
        path: What `torch.export.save` wrote.
        shapes: Extents of inputs, by name; for inputs with dynamic extents.
        limit_bytes: Most bytes that all weights together may have.

    Returns:
        A `torch.export.ExportedProgram`, decomposed into core ATen operators.

    Raises:
        NetworkFileError: It is no exported program, is damaged, or holds what could run code.
        UnsupportedOperatorsError: TVM cannot convert some of its operators.
        MissingShapesError: An input's extents are not known.
        MissingExtraError: The package torch is not installed.
    """
    try:
        import torch
        from torch.export.pt2_archive import PT2ArchiveReader
    except ImportError:
        raise MissingExtraError("torch", "models", "reading exported programs") from None
    if not path.is_file():
        raise NetworkFileError(f"there is no file {str(path)!r}; check the path")
    # torch raises exceptions of many kinds on archives that are none.
    try:
        reader = PT2ArchiveReader(str(path))
        model = json.loads(reader.read_bytes(_MODEL))
        configs = [json.loads(reader.read_bytes(name))["config"] for name in _CONFIGS]
    except MemoryError:
        raise
    except Exception as error:
        raise NetworkFileError(
            f"{path} cannot be read as an exported program ({type(error).__name__}); it is "
            "truncated, or was not written by torch.export.save of torch 2.9 or later"
        ) from None
    try:
        _check_records(reader, path, configs)
        _check_weights(path, configs, limit_bytes)
        _check_model(model, path)
    except (SchedenvError, MemoryError):
        raise
    except Exception as error:
        raise NetworkFileError(
            f"{path} is no valid exported program ({type(error).__name__} in its description); "
            "export it again"
        ) from None
    try:
        program = torch.export.load(str(path)).run_decompositions()
    except MemoryError:
        raise
    except Exception as error:
        raise NetworkFileError(
            f"{path} is no valid exported program: {type(error).__name__}: "
            f"{(str(error).strip().splitlines() or ['no message'])[0][:200]}; export it again"
        ) from None
    _check_convertible(program, path)
    check_shapes(path, open_inputs(program, path), shapes)
    symbol_values(program, path, shapes)
    return program


def open_inputs(program: Any, path: Path) -> dict[str, list[int | str]]:
    """The inputs that are not weights, with their extents; a text is an open extent.

    Raises:
        NetworkFileError: An input is no tensor.
    """
    values = {
        node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"
    }
    inputs: dict[str, list[int | str]] = {}
    for name in program.graph_signature.user_inputs:
        shape = getattr(values.get(name), "shape", None)
        if shape is None:
            raise NetworkFileError(
                f"{path} has an input {name!r} that is no tensor; export a module whose inputs are "
                "tensors alone"
            )
        inputs[name] = [extent if isinstance(extent, int) else str(extent) for extent in shape]
    return inputs


def symbol_values(program: Any, path: Path, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """The numbers that shapes give to a program's symbolic extents.

    Raises:
        MissingShapesError: Shapes contradict the program or each other.
    """
    values: dict[str, int] = {}
    for name, extents in open_inputs(program, path).items():
        for extent, given in zip(extents, shapes.get(name, ()), strict=False):
            if isinstance(extent, str) and re.fullmatch(r"\w+", extent):
                expected = values.setdefault(extent, given)
            else:
                expected = given if isinstance(extent, str) else extent
            if expected != given:
                raise MissingShapesError(
                    f"the input {name!r} of {path} is {'x'.join(map(str, extents))}, and "
                    f"{'x'.join(map(str, shapes[name]))} was given; {given} must be {expected}"
                )
    return values


def _check_records(reader: Any, path: Path, configs: Sequence[Mapping[str, Any]]) -> None:
    import torch

    allowed = {_MODEL, _SAMPLES, *_CONFIGS, *_HARMLESS}
    for folder, config in zip((_WEIGHTS, _CONSTANTS), configs, strict=True):
        for name, payload in config.items():
            file = str(payload.get("path_name"))
            if payload.get("use_pickle") is not False or not re.fullmatch(
                r"(weight|tensor)_\d+", file
            ):
                raise _refusal(path, f"{name!r} is kept as a Python object, not as a tensor")
            allowed.add(folder + file)
    for record in reader.get_file_names():
        if record not in allowed and not record.startswith(_HARMLESS_FOLDERS):
            raise _refusal(path, f"it holds {record!r}")
    samples = reader.read_bytes(_SAMPLES)
    if samples:
        try:
            # torch would fall back to unpickling without limits.
            torch.load(io.BytesIO(samples), weights_only=True)
        except Exception:
            raise _refusal(path, "its sample inputs are more than tensors") from None


def _check_weights(path: Path, configs: Sequence[Mapping[str, Any]], limit_bytes: int) -> None:
    total = 0
    for config in configs:
        for name, payload in config.items():
            sizes = [size.get("as_int", -1) for size in payload["tensor_meta"]["sizes"]]
            if any(not isinstance(size, int) or size < 0 for size in sizes):
                raise NetworkFileError(
                    f"{path} has a weight {name!r} of shape {sizes}; expected no negative "
                    "extents: the file is damaged"
                )
            # Four bytes each: of the wider types there are few weights.
            total += math.prod(sizes) * 4
    check_weights(path, total, limit_bytes)


def _check_model(model: Any, path: Path) -> None:
    operators = [str(node.get("target")) for nodes in _values(model, "nodes") for node in nodes]
    check_operator_count(path, len(operators))
    unknown = sorted({name for name in operators if not _OPERATORS.fullmatch(name)})
    if unknown:
        raise _unsupported(path, unknown)
    for expression in _values(model, "expr_str"):
        # torch writes sympy's srepr, in which symbols are the only texts.
        text = _SYMBOL.sub("0", str(expression))
        if not _EXPRESSION.fullmatch(text) or any(
            word not in _WORDS and not re.fullmatch(r"[suz]+\d+|\d+", word)
            for word in re.findall(r"\w+", text)
        ):
            raise _refusal(path, f"an extent is {str(expression)[:80]!r}")
    for key in ("in_spec", "out_spec"):
        for text in _values(model, key):
            _check_tree(json.loads(text) if text else None, path)


def _check_tree(tree: Any, path: Path) -> None:
    for kind in _values(tree, "type"):
        if kind is not None and kind not in _TREES:
            raise _refusal(path, f"its inputs or outputs are a {kind}")
    # The keys of a dict may be members of an enumeration, whose module would be imported.
    contexts = [json.loads(context) for context in _values(tree, "context") if context]
    if any(True for _ in _values([tree, contexts], "__enum__")):
        raise _refusal(path, "its inputs or outputs are named by an enumeration")


def _values(tree: Any, key: str) -> Iterator[Any]:
    """What lies under a key, anywhere in parsed JSON."""
    stack = [tree]
    while stack:
        top = stack.pop()
        if isinstance(top, dict):
            if key in top:
                yield top[key]
            stack.extend(top.values())
        elif isinstance(top, list):
            stack.extend(top)


def _check_convertible(program: Any, path: Path) -> None:
    from schedenv import tvm_relax

    unsupported = tvm_relax.unsupported_torch_operators(program)
    if unsupported:
        raise _unsupported(path, unsupported)


def _unsupported(path: Path, operators: Sequence[str]) -> UnsupportedOperatorsError:
    return UnsupportedOperatorsError(
        f"{path} uses operators that TVM cannot convert: {', '.join(operators)}; export the "
        "network with other operators"
    )


def _refusal(path: Path, reason: str) -> NetworkFileError:
    return NetworkFileError(
        f"{path} is refused, because loading it could run code: {reason}; export a module of "
        "plain tensors, with tensors (or tuples, lists, dicts of them) as inputs and outputs"
    )
