"""What the machine can do: measured peaks of arithmetic and of copying, and its timing noise.

Everything is timed in a fresh process with the environment of `hardware.worker_environment`; the
parent holds the deadline. A peak is the best of many short samples: neighbours and interrupts can
only slow a sample down, so the fastest is the closest to what the hardware can do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from schedenv import tvm_adapter
from schedenv.errors import MachineError
from schedenv.fma import FmaKernel, reference_kernel, tile_rows
from schedenv.hardware import Hardware, target, worker_environment

CACHE_VARIABLE = "SCHEDENV_CACHE_DIR"
# Importing TVM takes 2 seconds on an idle machine and has taken 40 on a loaded one.
DEADLINE_S = 120.0

_COPY_POOL_BYTES = 512 << 20
_COPY_WINDOW_BYTES = 8 << 20
_PATIENCE_S = 0.5
_SAMPLING_S = 2.0
_NOISE_ROUNDS = 400
_ATTEMPTS = 3


class Peaks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Measured limits of a machine.

    Attributes:
        flops_per_s: Float32 multiply-adds on all cores, each counted as two operations.
        one_core_flops_per_s: The same on one core.
        copy_bytes_per_s: Copying memory with all cores, bytes read plus bytes written. Where the
            last cache is larger than 512 MB or an eighth of memory, partly the cache's rate.
        reference_s: One call of `fma.reference_kernel`, undisturbed.
        measured_at_iso: When, in UTC, as ISO 8601.
        fingerprint: Of the hardware measured.
        tvm_version: Of the apache-tvm that compiled the kernels.
    """

    flops_per_s: float
    one_core_flops_per_s: float
    copy_bytes_per_s: float
    reference_s: float
    measured_at_iso: str
    fingerprint: str
    tvm_version: str


class Noise(msgspec.Struct, frozen=True):
    """An A/A test: one kernel built twice and timed in turn; a quiet machine shows no difference.

    Attributes:
        median_a_s: Median time of the first build.
        median_b_s: Median time of the second build.
        spread: Tenth to ninetieth percentile of all samples, as a fraction of their median.
        samples: Timings of each build.
    """

    median_a_s: float
    median_b_s: float
    spread: float
    samples: int

    @property
    def difference(self) -> float:
        """How much the slower median exceeds the faster, as a fraction of the faster."""
        low, high = sorted((self.median_a_s, self.median_b_s))
        return high / low - 1.0


def peaks(hardware: Hardware, *, refresh: bool = False) -> Peaks:
    """The peaks of this machine, from the cache or by some 8 seconds of measurement.

    Args:
        hardware: This machine, as `hardware.detect` describes it.
        refresh: Measure even if the cache has an answer.

    Raises:
        InstallError: TVM is missing or the installed pair of packages is broken.
        MachineError: The measuring process failed or passed its deadline.
    """
    tvm_adapter.check_install()
    tvm_version = importlib.metadata.version("apache-tvm")
    path = cache_dir() / f"peaks-{hardware.fingerprint}-tvm{tvm_version}.json"
    cached = None if refresh else _read_cache(path)
    if cached and (cached.fingerprint, cached.tvm_version) == (hardware.fingerprint, tvm_version):
        return cached
    rates = _run_child("peaks", hardware)
    result = Peaks(
        flops_per_s=rates["flops_per_s"],
        one_core_flops_per_s=rates["one_core_flops_per_s"],
        copy_bytes_per_s=rates["copy_bytes_per_s"],
        reference_s=rates["reference_s"],
        measured_at_iso=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        fingerprint=hardware.fingerprint,
        tvm_version=tvm_version,
    )
    # The peaks are valid without a cache; `doctor` reports a folder that cannot be written.
    with contextlib.suppress(OSError):
        _write_cache(path, result)
    return result


def noise(hardware: Hardware) -> Noise:
    """Run the A/A test, some 4 seconds; never cached.

    Raises:
        InstallError: TVM is missing or the installed pair of packages is broken.
        MachineError: The measuring process failed or passed its deadline.
    """
    tvm_adapter.check_install()
    times = _run_child("noise", hardware)
    return Noise(
        median_a_s=times["median_a_s"],
        median_b_s=times["median_b_s"],
        spread=times["spread"],
        samples=int(times["samples"]),
    )


def cache_dir() -> Path:
    """The folder for measured peaks, which may not exist: SCHEDENV_CACHE_DIR or the user's."""
    override = os.environ.get(CACHE_VARIABLE)
    if override:
        return Path(override)
    import platformdirs

    return Path(platformdirs.user_cache_dir("schedenv"))


def _read_cache(path: Path) -> Peaks | None:
    """The peaks in a cache file; None if it is missing, damaged or holds impossible rates."""
    try:
        cached = msgspec.json.decode(path.read_bytes(), type=Peaks)
    except (OSError, ValueError):
        return None
    rates = (cached.flops_per_s, cached.one_core_flops_per_s, cached.copy_bytes_per_s)
    return cached if all(math.isfinite(rate) and rate > 0 for rate in rates) else None


def _write_cache(path: Path, result: Peaks) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.encode(result))
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


# ---------------------------------------------------------------------------------------------
# The measuring process
# ---------------------------------------------------------------------------------------------


def _run_child(what: str, hardware: Hardware) -> dict[str, float]:
    """Run `measure(what, hardware)` in a fresh process and return what it printed."""
    package_parent = str(Path(__file__).resolve().parents[1])
    search_path = [package_parent, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        **worker_environment(hardware),
        "PYTHONPATH": os.pathsep.join(search_path),
    }
    description = json.dumps(dataclasses.asdict(hardware))
    # -P keeps a user's tvm.py or json.py in the current folder out of the child.
    command = [sys.executable, "-P", "-m", "schedenv.calibration", what, description]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, timeout=DEADLINE_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise MachineError(
            f"measuring the machine's {what} took more than {DEADLINE_S:.0f} s and was stopped; "
            "try again when the machine is less loaded"
        ) from None
    lines = done.stdout.decode(errors="replace").splitlines()
    if done.returncode == 0 and lines:
        with contextlib.suppress(ValueError):
            return msgspec.json.decode(lines[-1], type=dict[str, float])
    complaint = done.stderr.decode(errors="replace").strip().splitlines()
    raise MachineError(
        f"measuring the machine's {what} failed ({ending(done.returncode)}): "
        + (complaint[-1] if complaint else "no message")
    )


def ending(returncode: int) -> str:
    """How a process ended, in words."""
    if returncode >= 0:
        return f"exit status {returncode}"
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-returncode).name}"
    return f"killed by signal {-returncode}"


def measure(what: str, hardware: Hardware) -> dict[str, float]:
    """Time `what` ("peaks" or "noise") in this process, whose environment must be set for kernels.

    Returns:
        The rates of `Peaks` by name, or the fields of `Noise`.
    """
    if what == "noise":
        return _measure_noise(hardware)
    one_core, rows = max((_fma_rate(hardware, 1, rows), rows) for rows in tile_rows(hardware))
    all_cores = one_core
    for _ in range(_ATTEMPTS):
        # A busy neighbour can hold a core through a whole attempt; good scaling ends the loop.
        if all_cores < 0.85 * hardware.cores * one_core:
            all_cores = max(all_cores, _fma_rate(hardware, hardware.cores, rows))
    return {
        "one_core_flops_per_s": one_core,
        "flops_per_s": all_cores,
        "copy_bytes_per_s": _copy_rate(hardware),
        "reference_s": _best_time_s(reference_kernel(hardware).time_s),
    }


def _fma_rate(hardware: Hardware, threads: int, rows: int) -> float:
    """Best operations per second of `threads` register tiles."""
    kernel = FmaKernel(hardware, threads, rows)
    return kernel.flops / _best_time_s(kernel.time_s)


def _copy_rate(hardware: Hardware) -> float:
    """Best bytes per second, read plus written, of a parallel copy.

    Short samples walk through windows of a pool, so that each finds its window out of the caches.
    """
    import numpy as np
    import tvm
    from tvm import te

    pool_bytes = min(_COPY_POOL_BYTES, hardware.memory_bytes // 8)
    window_bytes = min(_COPY_WINDOW_BYTES, pool_bytes)
    # Half of a window is read, half written, in rows of 64 floats.
    shape = (hardware.cores, max(1, window_bytes // 2 // 256 // hardware.cores), 64)
    source = te.placeholder(shape, "float32", name="source")
    copy = te.compute(shape, lambda p, i, j: source[p, i, j], name="copy")
    schedule = tvm_adapter.new_schedule(tvm_adapter.module_from_tensors([source, copy]))
    p, _, j = schedule.get_loops(schedule.get_sblock("copy"))
    schedule.parallel(p)
    schedule.vectorize(j)
    function = tvm_adapter.build(schedule.mod, target(hardware))["main"]
    ones = np.ones(shape, np.float32)
    windows = [
        (tvm.runtime.tensor(ones), tvm.runtime.tensor(ones))
        for _ in range(pool_bytes // window_bytes)
    ]
    turn = 0

    def time_s() -> float:
        nonlocal turn
        turn += 1
        start_s = time.perf_counter()
        function(*windows[turn % len(windows)])
        return time.perf_counter() - start_s

    return 2 * ones.nbytes / _best_time_s(time_s)


def _best_time_s(time_s: Callable[[], float]) -> float:
    """The fastest call, sampled until none is 1 % faster for a while."""
    time_s()
    best_s = math.inf
    start_s = improved_s = now_s = time.perf_counter()
    while now_s - improved_s < _PATIENCE_S and now_s - start_s < _SAMPLING_S:
        sample_s = time_s()
        now_s = time.perf_counter()
        if sample_s < 0.99 * best_s:
            improved_s = now_s
        best_s = min(best_s, sample_s)
    return best_s


def _measure_noise(hardware: Hardware) -> dict[str, float]:
    rows = tile_rows(hardware)[0]
    kernels = [FmaKernel(hardware, hardware.cores, rows, repeats=64) for _ in range(2)]
    times_s: tuple[list[float], list[float]] = ([], [])
    for kernel in kernels:
        kernel.time_s()
    for turn in range(_NOISE_ROUNDS):
        # Swapping the order keeps an effect of going first out of the difference.
        for which in (0, 1) if turn % 2 else (1, 0):
            times_s[which].append(kernels[which].time_s())
    deciles = statistics.quantiles(times_s[0] + times_s[1], n=10)
    return {
        "median_a_s": statistics.median(times_s[0]),
        "median_b_s": statistics.median(times_s[1]),
        "spread": (deciles[-1] - deciles[0]) / deciles[4],
        "samples": _NOISE_ROUNDS,
    }


def _main(arguments: list[str]) -> None:
    what, description = arguments
    hardware = Hardware(**json.loads(description))
    print(json.dumps(measure(what, hardware)))


if __name__ == "__main__":
    _main(sys.argv[1:])
