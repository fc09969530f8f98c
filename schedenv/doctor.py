"""What is wrong with this machine or installation, and how to mend it.

Every check works when TVM is missing or broken: nothing here imports TVM before a child process
has shown that it can be imported.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from schedenv import calibration, hardware, tvm_adapter
from schedenv.errors import InputError, InstallError, MachineError
from schedenv.hardware import Hardware

Status = Literal["ok", "warn", "fail"]

_MINIMUM_PYTHON = (3, 11)
_GIB = 1 << 30
_PROBE_DEADLINE_S = 120.0
# save_json is what the broken apache-tvm-ffi dies in; a new release may break it again.
_PROBE = "import tvm; tvm.ir.save_json(tvm.IRModule({}))"
_POOL_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Check:
    """One thing looked at.

    Attributes:
        name: What was looked at.
        status: `ok`; `warn`, schedenv works but results may suffer; `fail`, it does not work.
        detail: What was found.
        mend: What to do about it, often a command; None if nothing needs doing.
    """

    name: str
    status: Status
    detail: str
    mend: str | None = None


@dataclass(frozen=True)
class Report:
    """Everything that `diagnose` found.

    Attributes:
        hardware: This machine; None if TVM, which names its processor, does not work.
        versions: Version by package, and of Python and the platform; "missing" if not installed.
        peaks: Measured peaks; None if they could not be measured.
        noise: The A/A test; None if not asked for or not possible.
        checks: All checks, in the order made.
    """

    hardware: Hardware | None
    versions: dict[str, str]
    peaks: calibration.Peaks | None
    noise: calibration.Noise | None
    checks: tuple[Check, ...]

    @property
    def failed(self) -> bool:
        """Whether any check failed; warnings do not count."""
        return any(check.status == "fail" for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """The whole report, ready for JSON."""
        noise = self.noise
        return {
            "failed": self.failed,
            "hardware": self.hardware.to_dict() if self.hardware else None,
            "versions": self.versions,
            "peaks": msgspec.to_builtins(self.peaks),
            "noise": {**msgspec.to_builtins(noise), "difference": noise.difference}
            if noise
            else None,
            "checks": [dataclasses.asdict(check) for check in self.checks],
        }


def diagnose(*, noise: bool = False, refresh: bool = False) -> Report:
    """Examine machine and installation: some 4 seconds, and 8 more when peaks are not cached.

    Args:
        noise: Also run the A/A test, 4 seconds more.
        refresh: Measure the peaks again even if they are cached.
    """
    root, environment = hardware.ROOT, os.environ
    checks = [check_python(), check_tvm()]
    checks.append(check_cores(root, environment))
    machine = _detect() if all(check.status != "fail" for check in checks) else None
    with contextlib.suppress(InputError):
        cores = hardware.usable_cores(root, environment)
        checks += [check_tvm_threads(environment, cores), check_load(cores)]
    checks += [
        check_pools(environment),
        check_steal(root),
        check_governor(root),
        check_memory(root),
        check_disk(Path.cwd()),
        check_cache(calibration.cache_dir()),
        *check_extras(),
    ]
    peaks, aa = None, None
    if machine is not None:
        try:
            peaks = calibration.peaks(machine, refresh=refresh)
            checks.append(check_peaks(peaks, machine.cores))
            if noise:
                aa = calibration.noise(machine)
                checks.append(check_noise(aa))
        except MachineError as error:
            checks.append(Check("measuring", "fail", str(error), "schedenv doctor --refresh"))
    return Report(machine, versions(), peaks, aa, tuple(checks))


def versions() -> dict[str, str]:
    """Versions of everything that can change a measurement."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in ("schedenv", "apache-tvm", "apache-tvm-ffi", "numpy", "gymnasium"):
        found[package] = _version(package) or "missing"
    return found


# ---------------------------------------------------------------------------------------------
# The installation
# ---------------------------------------------------------------------------------------------


def check_python() -> Check:
    """Python is 3.11 or later."""
    version = platform.python_version()
    if sys.version_info[:2] < _MINIMUM_PYTHON:
        return Check("python", "fail", f"{version}; expected 3.11 or later", "install Python 3.11")
    return Check("python", "ok", version)


def check_tvm() -> Check:
    """The packages of TVM are a pair that works, and a child process can use them."""
    try:
        tvm_adapter.check_install()
    except InstallError as error:
        detail, _, mend = str(error).partition("; run: ")
        return Check("tvm", "fail", detail, mend or None)
    mend = (
        "pip install --force-reinstall 'apache-tvm==0.27.*' "
        f"'apache-tvm-ffi{tvm_adapter.KNOWN_GOOD_FFI}'"
    )
    command = [sys.executable, "-P", "-c", _PROBE]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_PROBE_DEADLINE_S, check=False)
    except subprocess.TimeoutExpired:
        return Check("tvm", "fail", f"importing took more than {_PROBE_DEADLINE_S:.0f} s", mend)
    if done.returncode:
        complaint = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        reason = ": ".join([calibration.ending(done.returncode), *complaint])
        return Check("tvm", "fail", f"TVM is installed but does not work: {reason}", mend)
    version = _version("apache-tvm") or "?"
    detail = f"apache-tvm {version} with apache-tvm-ffi {_version('apache-tvm-ffi')}"
    if not version.startswith("0.27."):
        return Check("tvm", "warn", f"{detail}; schedenv is verified with 0.27 only", mend)
    return Check("tvm", "ok", detail)


def check_extras() -> list[Check]:
    """One check for each optional extra of schedenv: which of its packages are not installed."""
    extras: dict[str, list[str]] = {}
    for line in _requirements():
        match = re.match(r"\s*([A-Za-z0-9._-]+).*;.*\bextra\s*==\s*['\"]([^'\"]+)['\"]", line)
        if match:
            extras.setdefault(match.group(2), []).append(match.group(1))
    return [_check_extra(extra, packages) for extra, packages in extras.items()]


def _check_extra(extra: str, packages: list[str]) -> Check:
    missing = [package for package in packages if _version(package) is None]
    if missing:
        detail = "not installed: " + ", ".join(missing)
        return Check(f"extra {extra}", "warn", detail, f"pip install 'schedenv[{extra}]'")
    return Check(f"extra {extra}", "ok", ", ".join(packages))


def _requirements() -> list[str]:
    try:
        return importlib.metadata.requires("schedenv") or []
    except importlib.metadata.PackageNotFoundError:
        return []


def _version(package: str) -> str | None:
    """An installed package's version; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _detect() -> Hardware | None:
    # check_cores and check_tvm have reported what makes this fail.
    with contextlib.suppress(InputError, InstallError):
        return hardware.detect()
    return None


# ---------------------------------------------------------------------------------------------
# Cores and threads
# ---------------------------------------------------------------------------------------------


def check_cores(root: Path, environment: Mapping[str, str]) -> Check:
    """How many cores kernels may use, and what limits them."""
    name = hardware.CORES_VARIABLE
    try:
        cores = hardware.usable_cores(root, environment)
    except InputError as error:
        return Check("cores", "fail", str(error), f"unset {name}")
    available, quota = hardware.available_cpus(), hardware.read_cpu_quota(root)
    granted = available if quota is None else min(available, quota)
    limit = "no CPU quota" if quota is None else f"a container's quota of {quota:g} CPUs"
    detail = f"using {cores} of {os.cpu_count()} CPUs; {available} by affinity, {limit}"
    if cores > granted:
        advice = f"unset {name}" if environment.get(name) else "raise the container's CPU quota"
        return Check("cores", "warn", f"{detail}; kernels will be throttled", advice)
    if quota is not None and quota < available:
        advice = f"give the container a whole CPU set (docker run --cpuset-cpus=0-{cores - 1})"
        return Check("cores", "warn", f"{detail}; a quota stalls threads in bursts", advice)
    return Check("cores", "ok", detail)


def check_tvm_threads(environment: Mapping[str, str], cores: int) -> Check:
    """TVM_NUM_THREADS agrees with the cores of the target, or is not set."""
    default = max(1, (os.cpu_count() or 1) // 2)
    detail = (
        f"schedenv's workers set TVM_NUM_THREADS={cores} themselves; "
        f"in your own processes TVM's default is half of the CPUs, {default}"
    )
    value = environment.get("TVM_NUM_THREADS")
    if value is not None and value != str(cores):
        detail = f"TVM_NUM_THREADS={value} in the environment, but {cores} cores; {detail}"
        return Check("tvm threads", "warn", detail, f"export TVM_NUM_THREADS={cores}")
    return Check("tvm threads", "ok", detail)


def check_pools(environment: Mapping[str, str]) -> Check:
    """What the thread pools of numpy and torch would do beside a timed kernel."""
    found = ", ".join(f"{name}={environment.get(name, 'unset')}" for name in _POOL_VARIABLES)
    detail = (
        f"{found}; schedenv's workers set all to 1, for spinning pools make kernels look slower: "
        "do the same where you time kernels yourself"
    )
    return Check("other thread pools", "ok", detail)


# ---------------------------------------------------------------------------------------------
# Noise
# ---------------------------------------------------------------------------------------------


def check_load(cores: int) -> Check:
    """Whether other processes are running."""
    if not hasattr(os, "getloadavg"):
        return Check("load", "ok", "this system gives no load average")
    load = os.getloadavg()[0]
    detail = f"load average {load:.1f} over the last minute, on {cores} cores"
    if load > max(0.5, 0.25 * cores):
        return Check("load", "warn", detail, "close other programs before measuring")
    return Check("load", "ok", detail)


def check_steal(root: Path, window_s: float = 1.0) -> Check:
    """How much time a busy loop loses, and to whom."""
    before = hardware.read_cpu_times(root)
    largest_gap_s, lost = spin(window_s)
    after = hardware.read_cpu_times(root)
    detail = f"a busy loop lost {lost:.0%} of its time, {largest_gap_s * 1e3:.1f} ms at once"
    stolen = 0.0
    if before and after:
        wanted = after[0] - before[0]
        stolen = (after[1] - before[1]) / wanted if wanted > 0 else 0.0
        detail = f"{stolen:.0%} of the CPU time asked for was stolen by the host; {detail}"
    if stolen > 0.02 or lost > 0.02 or largest_gap_s > 0.005:
        mend = (
            "close other programs or use a dedicated machine; here, trust only differences well "
            "above the spread that `schedenv doctor --noise` shows"
        )
        return Check("quiet", "warn", detail, mend)
    return Check("quiet", "ok", detail)


def spin(window_s: float) -> tuple[float, float]:
    """Read the clock in a loop for `window_s` seconds.

    Returns:
        The longest time between two readings in seconds, and the share of the window (0 to 1)
        lost in interruptions of at least 0.1 ms.
    """
    start_s = last_s = time.perf_counter()
    largest_s = lost_s = 0.0
    while last_s - start_s < window_s:
        now_s = time.perf_counter()
        gap_s = now_s - last_s
        if gap_s > 1e-4:
            lost_s += gap_s
            largest_s = max(largest_s, gap_s)
        last_s = now_s
    return largest_s, lost_s / (last_s - start_s)


def check_governor(root: Path) -> Check:
    """Whether the processor's frequency is governed for speed."""
    governor = hardware.read_text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    if governor is None:
        return Check("frequency governor", "ok", "not readable, as in most virtual machines")
    if governor != "performance":
        mend = "sudo cpupower frequency-set --governor performance"
        return Check("frequency governor", "warn", governor, mend)
    return Check("frequency governor", "ok", governor)


def check_peaks(peaks: calibration.Peaks, cores: int) -> Check:
    """Whether the measured peaks agree with each other."""
    ratio = peaks.flops_per_s / peaks.one_core_flops_per_s
    detail = f"{cores} cores reach {ratio:.1f} times the rate of one"
    if ratio < 0.7 * cores:
        detail += "; they share units, or the machine was busy when they were measured"
        return Check("peaks", "warn", detail, "schedenv doctor --refresh")
    return Check("peaks", "ok", detail)


def check_noise(noise: calibration.Noise) -> Check:
    """Whether two builds of one kernel look equally fast."""
    detail = (
        f"two builds of one kernel differ by {noise.difference:.1%} in their medians of "
        f"{noise.samples}; spread {noise.spread:.0%} of the median (10th to 90th percentile)"
    )
    if noise.difference > 0.02 or noise.spread > 0.2:
        mend = "use a quieter machine, or more repeats before you believe a small gain"
        return Check("A/A test", "warn", detail, mend)
    return Check("A/A test", "ok", detail)


# ---------------------------------------------------------------------------------------------
# Memory and disk
# ---------------------------------------------------------------------------------------------


def check_memory(root: Path) -> Check:
    """Whether there is memory for compiling and running."""
    import psutil

    available = min([int(psutil.virtual_memory().available), *hardware.read_memory_limits(root)])
    detail = f"{available / _GIB:.1f} GiB available"
    if available < 2 * _GIB:
        return Check("memory", "warn", detail, "close other programs; schedenv wants 2 GiB free")
    return Check("memory", "ok", detail)


def check_disk(folder: Path) -> Check:
    """Whether there is room for records in `folder`."""
    free = shutil.disk_usage(folder).free
    detail = f"{free / _GIB:.1f} GiB free in the current folder"
    if free < _GIB:
        return Check("disk", "warn", detail, "free some space, or pass --out on another disk")
    return Check("disk", "ok", detail)


def check_cache(folder: Path) -> Check:
    """Whether measured peaks can be kept in `folder`; creates it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        detail = f"cannot write to {folder}: {error.strerror}; peaks are measured every time"
        mend = f"export {calibration.CACHE_VARIABLE}=DIR with a folder that you can write to"
        return Check("cache", "warn", detail, mend)
    return Check("cache", "ok", str(folder))
