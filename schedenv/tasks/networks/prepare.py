"""From a file to a prepared network, in a process with limits, once for each file."""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from schedenv import errors, tvm_adapter, tvm_relax
from schedenv import hardware as hw
from schedenv.calibration import cache_dir
from schedenv.errors import NetworkFileError, SchedenvError
from schedenv.tasks.networks import network
from schedenv.tasks.networks.network import Network
from schedenv.tasks.networks.source import load_onnx
from schedenv.tasks.networks.sums import chain_sums
from schedenv.tasks.networks.torch_source import load_program, symbol_values
from schedenv.tasks.networks.widen import widen_convolutions

TIMEOUT_S = 900.0
"""How long an import may take."""

MEMORY_SHARE = 0.6
"""Of the machine's memory: address space that an import may take."""

_WEIGHTS_SHARE = 1 / 6
_TORCH = ".pt2"
_OUT_OF_MEMORY = re.compile(
    r"bad_alloc|MemoryError|[Cc]annot allocate|can't allocate|out of memory"
)

Shapes = Mapping[str, Sequence[int]]


def prepare(
    path: Path,
    shapes: Shapes | None = None,
    *,
    channels_last: bool = True,
    timeout_s: float = TIMEOUT_S,
    memory_bytes: int | None = None,
) -> Network:
    """Import a network, fold its constants and batch norms, fuse its operators into kernels.

    What comes out is kept in the cache directory, under a name made from the file's content. TVM's
    front end runs in a process of its own, with a limit on its memory and a deadline: whatever a
    hostile file does to it, this process goes on.

    Args:
        path: An ONNX file, a program that `torch.export.save` wrote (.pt2), or the folder of a
            prepared network, which is opened as it is.
        shapes: Extents of inputs that the file leaves open, by name.
        channels_last: Turn convolutions to NHWC, which TVM's schedules vectorise; weights are
            packed accordingly, once.
        timeout_s: How long the import may take.
        memory_bytes: How much address space it may take; None for 60 % of the machine's memory.

    Raises:
        NetworkFileError: The file cannot be used; `UnsupportedOperatorsError` and
            `MissingShapesError` are such.
        MissingExtraError: The package onnx, or torch for a .pt2 file, is not installed.
    """
    if path.is_dir():
        return Network.read(path)
    if not path.is_file():
        raise NetworkFileError(f"there is no file {str(path)!r}; check the path")
    request = {
        "path": str(path.resolve()),
        "shapes": {name: list(extents) for name, extents in (shapes or {}).items()},
        "channels_last": channels_last,
        "lanes": hw.detect().vector_lanes("float32"),
        "memory_bytes": memory_bytes or int(psutil.virtual_memory().total * MEMORY_SHARE),
    }
    folder = cache_dir() / "networks" / f"{path.stem}-{_digest(path, request)}"
    if not (folder / network.DESCRIPTION).exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
        try:
            _run_worker({**request, "folder": str(partial)}, path, timeout_s)
            # Another process may have been faster; then its folder is as good.
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return Network.read(folder)


def _digest(path: Path, request: Mapping[str, Any]) -> str:
    """Of the file, of the files beside it that it names (its weights), and of what is made of them.

    Nothing else in the folder counts: a log that grows there must not make another network of it.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    # Weights in files of their own are told apart by date and size, not read.
    content = path.read_bytes() if path.stat().st_size < 1 << 20 else b""
    for neighbour in sorted(path.parent.glob("*")) if content else []:
        if neighbour.is_file() and neighbour != path and neighbour.name.encode() in content:
            stat = neighbour.stat()
            digest.update(f"{neighbour.name} {stat.st_size} {stat.st_mtime_ns}".encode())
    options = {key: request[key] for key in ("shapes", "channels_last", "lanes")}
    digest.update(json.dumps([network.VERSION, options], sort_keys=True).encode())
    return digest.hexdigest()[:16]


def _run_worker(request: Mapping[str, Any], path: Path, timeout_s: float) -> None:
    try:
        done = subprocess.run(
            [sys.executable, "-m", "schedenv.tasks.networks.prepare"],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    except subprocess.TimeoutExpired:
        raise NetworkFileError(
            f"{path} was not imported within {timeout_s:.0f} s; export a smaller network"
        ) from None
    if done.returncode == 0:
        return
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if lines:
        failure = json.loads(lines[-1])
        kind = getattr(errors, failure["error"], NetworkFileError)
        if issubclass(kind, errors.MissingExtraError):
            if path.suffix == _TORCH:
                raise errors.MissingExtraError("torch", "models", "reading exported programs")
            raise errors.MissingExtraError("onnx", "vendor", "reading networks")
        raise kind(failure["message"])
    if _OUT_OF_MEMORY.search(done.stderr):
        raise _too_large(request)
    said = [line for line in done.stderr.splitlines() if line.strip()]
    raise NetworkFileError(
        f"{path} ended the process that imports it (exit code {done.returncode}: "
        f"{said[-1][:200] if said else 'no message'}); it is too large, too deep or damaged"
    )


def _too_large(request: Mapping[str, Any]) -> NetworkFileError:
    return NetworkFileError(
        f"{request['path']} does not fit in the {request['memory_bytes'] / 1e9:.3g} GB that its "
        "import may take; export a smaller network or import it on a larger machine"
    )


def _work(request: Mapping[str, Any]) -> None:
    """What the limited process does."""
    limit_bytes = int(request["memory_bytes"])
    resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, resource.RLIM_INFINITY))
    path, channels_last = Path(request["path"]), bool(request["channels_last"])
    convert = _convert_torch if path.suffix == _TORCH else _convert_onnx
    source = convert(request, int(limit_bytes * _WEIGHTS_SHARE))
    # The front ends raise whatever they like on what they cannot convert.
    try:
        original = source()
        prepared = tvm_relax.fuse(tvm_relax.simplify(original, channels_last=channels_last))
    except MemoryError:
        raise
    except Exception as error:
        if _OUT_OF_MEMORY.search(str(error)):
            raise _too_large(request) from error
        raise NetworkFileError(
            f"TVM cannot import {path}: {type(error).__name__}: {tvm_adapter.first_line(error)}"
        ) from error
    network.write(Path(request["folder"]), path, original, prepared, channels_last=channels_last)


def _convert_onnx(request: Mapping[str, Any], limit_bytes: int) -> Callable[[], Any]:
    model = load_onnx(Path(request["path"]), request["shapes"], limit_bytes)
    chain_sums(model)
    if request["channels_last"]:
        widen_convolutions(model, request["lanes"])
    return lambda: tvm_relax.import_onnx(model, request["shapes"])


def _convert_torch(request: Mapping[str, Any], limit_bytes: int) -> Callable[[], Any]:
    path = Path(request["path"])
    program = load_program(path, request["shapes"], limit_bytes)
    extents = symbol_values(program, path, request["shapes"])
    return lambda: tvm_relax.import_torch(program, extents)


def _main() -> None:
    request = json.loads(sys.stdin.read())
    try:
        _work(request)
    except MemoryError:
        failure = _too_large(request)
        print(json.dumps({"error": type(failure).__name__, "message": str(failure)}), flush=True)
        os._exit(1)
    except SchedenvError as error:
        print(json.dumps({"error": type(error).__name__, "message": str(error)}), flush=True)
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    _main()
