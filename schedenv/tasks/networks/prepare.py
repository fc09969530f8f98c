"""From a file to a prepared network, in a process with limits, once for each file."""

from __future__ import annotations

import hashlib
import json
import os
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
from schedenv.calibration import cache_dir
from schedenv.errors import MissingShapesError, NetworkFileError, SchedenvError
from schedenv.tasks.networks import network
from schedenv.tasks.networks.exported import check_trusted, is_exported, load_exported
from schedenv.tasks.networks.network import Network
from schedenv.tasks.networks.source import load_onnx
from schedenv.tasks.networks.sums import chain_sums
from schedenv.tasks.networks.widen import widen_convolutions

TIMEOUT_S = 900.0
"""How long an import may take."""

_MEMORY_SHARE = 0.6
_WEIGHTS_SHARE = 0.1

Shapes = Mapping[str, Sequence[int]]


def prepare(
    path: Path,
    shapes: Shapes | None = None,
    *,
    channels_last: bool = True,
    timeout_s: float = TIMEOUT_S,
    trusted: bool = False,
) -> Network:
    """Import a network, fold its constants and batch norms, fuse its operators into kernels.

    What comes out is kept in the cache directory, under a name made from the file's content. TVM's
    front end runs in a process of its own, with a limit on its memory and a deadline: whatever a
    hostile file does to it, this process goes on.

    Args:
        path: An ONNX file, a torch program (`.pt2`), or the folder of a prepared network, which
            is opened as it is.
        shapes: Extents of inputs that an ONNX file leaves open, by name.
        channels_last: Turn convolutions to NHWC, which TVM's schedules vectorise; weights are
            packed accordingly, once.
        timeout_s: How long the import may take.
        trusted: Whether a torch program may be read that was not imported before; see
            `schedenv.tasks.networks.exported`.

    Raises:
        NetworkFileError: The file cannot be used, or is not trusted; `UnsupportedOperatorsError`
            and `MissingShapesError` are such.
        MissingExtraError: The package onnx, or torch, is not installed.
    """
    if path.is_dir():
        return Network.read(path)
    if not path.is_file():
        raise NetworkFileError(f"there is no file {str(path)!r}; check the path")
    request = {
        "path": str(path.resolve()),
        "shapes": {name: list(extents) for name, extents in (shapes or {}).items()},
        "channels_last": channels_last,
    }
    folder = cache_dir() / "networks" / f"{path.stem}-{_digest(path, request)}"
    if not (folder / network.DESCRIPTION).exists():
        check_trusted(path, trusted=trusted)
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
    """Of the folder's files (weights may lie beside the network) and of what is made of them."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    # Weights in files of their own are told apart by date and size, not read.
    beside = sorted(path.parent.glob("*")) if path.stat().st_size < 1 << 20 else []
    for neighbour in beside:
        if neighbour.is_file() and neighbour != path:
            stat = neighbour.stat()
            digest.update(f"{neighbour.name} {stat.st_size} {stat.st_mtime_ns}".encode())
    options = {key: request[key] for key in ("shapes", "channels_last")}
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
            if is_exported(path):
                raise errors.MissingExtraError("torch", "models", "reading torch programs")
            raise errors.MissingExtraError("onnx", "vendor", "reading networks")
        raise kind(failure["message"])
    said = [line for line in done.stderr.splitlines() if line.strip()]
    raise NetworkFileError(
        f"{path} ended the process that imports it (exit code {done.returncode}: "
        f"{said[-1][:200] if said else 'no message'}); it is too large, too deep or damaged"
    )


def _work(request: Mapping[str, Any]) -> None:
    """What the limited process does."""
    memory_bytes = psutil.virtual_memory().total
    limit_bytes = int(memory_bytes * _MEMORY_SHARE)
    resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, resource.RLIM_INFINITY))
    path, channels_last = Path(request["path"]), bool(request["channels_last"])
    convert = _read(path, request, int(memory_bytes * _WEIGHTS_SHARE))
    # The front end raises whatever it likes on what it cannot convert.
    try:
        original = convert()
        prepared = tvm_relax.fuse(tvm_relax.simplify(original, channels_last=channels_last))
    except SchedenvError:
        raise
    except Exception as error:
        raise NetworkFileError(
            f"TVM cannot import {path}: {type(error).__name__}: {tvm_adapter.first_line(error)}"
        ) from error
    network.write(Path(request["folder"]), path, original, prepared, channels_last=channels_last)


def _read(path: Path, request: Mapping[str, Any], limit_bytes: int) -> Callable[[], Any]:
    """Read and check a file; what is returned converts it."""
    if is_exported(path):
        if request["shapes"]:
            raise MissingShapesError(
                f"the shapes of a torch program are fixed when it is exported; export {path} with "
                "other inputs instead of giving --shape"
            )
        program = load_exported(path)
        return lambda: tvm_relax.import_exported(program)
    model = load_onnx(path, request["shapes"], limit_bytes)
    chain_sums(model)
    if request["channels_last"]:
        widen_convolutions(model)
    return lambda: tvm_relax.import_onnx(model, request["shapes"])


def _main() -> None:
    try:
        _work(json.loads(sys.stdin.read()))
    except MemoryError:
        failure = NetworkFileError("the network does not fit in memory while it is imported")
        print(json.dumps({"error": type(failure).__name__, "message": str(failure)}), flush=True)
        os._exit(1)
    except SchedenvError as error:
        print(json.dumps({"error": type(error).__name__, "message": str(error)}), flush=True)
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    _main()
