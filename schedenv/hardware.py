"""What the machine is: cores, vector width, caches, memory, and the TVM target they make.

Nothing here is timed; see `schedenv.calibration` for measured peaks. The readers take a root
folder, so that they can be tested on a machine that is not the one described.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import os
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from schedenv import tvm_adapter
from schedenv.errors import InputError

if TYPE_CHECKING:
    from tvm.target import Target

CORES_VARIABLE = "SCHEDENV_CORES"
ROOT = Path("/")

_SIZE_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True)
class Hardware:
    """The part of a machine that decides which schedule is fast.

    Attributes:
        cpu_model: The processor's marketing name, as the operating system gives it.
        mcpu: LLVM's name of the processor.
        cores: Threads that a kernel may use, at least 1.
        vector_bits: Width of the widest vector register.
        l1d_bytes: First-level data cache of one core; None if unknown.
        l2_bytes: Second-level cache of one core; None if unknown.
        l3_bytes: Third-level cache, shared; None if unknown or absent.
        memory_bytes: Main memory that this process may use.
    """

    cpu_model: str
    mcpu: str
    cores: int
    vector_bits: int
    l1d_bytes: int | None
    l2_bytes: int | None
    l3_bytes: int | None
    memory_bytes: int

    @property
    def fingerprint(self) -> str:
        """A file-name-safe name, such as `znver5-2c-512b-0123456789ab`.

        The last part hashes all attributes but the memory, whose limit changes between two runs
        on one machine without changing any kernel's speed.
        """
        identity = dataclasses.asdict(self)
        del identity["memory_bytes"]
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
        mcpu = re.sub(r"[^A-Za-z0-9_.]+", "_", self.mcpu)
        return f"{mcpu}-{self.cores}c-{self.vector_bits}b-{digest}"

    def to_dict(self) -> dict[str, str | int | None]:
        """The attributes and the fingerprint, ready for JSON."""
        return {**dataclasses.asdict(self), "fingerprint": self.fingerprint}

    def vector_lanes(self, dtype: str) -> int:
        """How many elements of `dtype` (numpy spelling) fill one vector register, at least 1.

        Raises:
            InputError: `dtype` names no element type with a size.
        """
        match = re.fullmatch(r"(?:float|bfloat|int|uint|complex)(\d+)", dtype)
        if match is None and dtype != "bool":
            raise InputError(f"expected an element type such as 'float32', got {dtype!r}")
        bits = max(8, int(match.group(1))) if match else 8
        return max(1, self.vector_bits // bits)


def vector_registers(vector_bits: int) -> int:
    """How many vector registers of a width a core has.

    32 of 512 bits (AVX-512) and of 128 (ARM; x86-64 has had wider ones for a decade), 16 of 256
    (AVX).
    """
    return 16 if vector_bits == 256 else 32


@functools.cache
def detect() -> Hardware:
    """This machine, read once a process.

    Raises:
        InputError: The environment variable SCHEDENV_CORES is not a positive integer.
        InstallError: TVM, which knows the processor's LLVM name, is missing or broken.
    """
    return read_machine(ROOT, os.environ, mcpu=tvm_adapter.host_cpu())


def read_machine(root: Path, environment: Mapping[str, str], *, mcpu: str) -> Hardware:
    """Describe the machine whose /proc and /sys lie under `root`.

    Raises:
        InputError: SCHEDENV_CORES in `environment` is not a positive integer.
    """
    caches = read_caches(root)
    return Hardware(
        cpu_model=read_cpu_model(root),
        mcpu=mcpu,
        cores=usable_cores(root, environment),
        vector_bits=read_vector_bits(root),
        l1d_bytes=caches.get(1),
        l2_bytes=caches.get(2),
        l3_bytes=caches.get(3),
        memory_bytes=read_memory_bytes(root),
    )


def target(hardware: Hardware, *, quick: bool = False) -> Target:
    """The TVM target that kernels for `hardware` are compiled for.

    Args:
        hardware: The machine.
        quick: Whether LLVM may give up on optimisations that take long and hardly ever gain
            anything: see `schedenv.tvm_adapter.QUICK_LLVM`.
    """
    options = tvm_adapter.QUICK_LLVM if quick else ()
    return tvm_adapter.make_target(hardware.mcpu, hardware.cores, options)


def kernel_environment(hardware: Hardware) -> dict[str, str]:
    """Environment variables for any process that runs kernels; set them before it starts.

    TVM would use half of the CPUs. The threads of numpy's and torch's pools keep spinning after a
    call, and a kernel timed beside them looks several times slower.
    """
    return {
        "TVM_NUM_THREADS": str(hardware.cores),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }


def worker_environment(hardware: Hardware) -> dict[str, str]:
    """Environment variables for a process that takes turns with others at running kernels.

    After a kernel, the threads of TVM's pool spin for 100 ms by default, on the cores that the
    next process runs its kernel on, which then looks up to five times slower. Here they spin for
    about one millisecond: longer than any pause between the parallel parts of a kernel, so that
    the kernel itself is as fast as without a limit.
    """
    return {**kernel_environment(hardware), "TVM_THREAD_POOL_SPIN_COUNT": "3000"}


# ---------------------------------------------------------------------------------------------
# Readers of /proc and /sys
# ---------------------------------------------------------------------------------------------


def read_text(path: Path) -> str | None:
    """A file's text without surrounding blanks; None if it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def read_cpu_model(root: Path) -> str:
    """The processor's name; on ARM Linux, which gives none, its implementer and part numbers."""
    info = _first_processor(root)
    if "model name" in info:
        return info["model name"]
    if "CPU part" in info:
        return f"ARM implementer {info.get('CPU implementer', '?')} part {info['CPU part']}"
    return platform.processor() or platform.machine() or "unknown"


def read_vector_bits(root: Path, machine: str | None = None) -> int:
    """Width of the widest vector register: 512, 256 or 128.

    Args:
        root: Where /proc lies.
        machine: The architecture, asked for when /proc/cpuinfo lists no features; None is this
            machine's.
    """
    info = _first_processor(root)
    features = set((info.get("flags") or info.get("Features") or "").split())
    if features:
        return 512 if "avx512f" in features else 256 if "avx" in features else 128
    # Without a feature list (macOS, Windows), AVX is a safe guess on x86-64: a decade of machines
    # have it. On ARM, LLVM's fixed-width code is NEON even where SVE is wider.
    return 256 if (machine or platform.machine()).lower() in {"x86_64", "amd64"} else 128


def read_caches(root: Path) -> dict[int, int]:
    """Bytes of the data or unified cache of each level that CPU 0 reports."""
    sizes: dict[int, int] = {}
    for folder in sorted(root.glob("sys/devices/system/cpu/cpu0/cache/index*")):
        size = re.fullmatch(r"(\d+)([KMG]?)", read_text(folder / "size") or "")
        level = read_text(folder / "level") or ""
        if size and level.isdigit() and read_text(folder / "type") in {"Data", "Unified"}:
            sizes[int(level)] = int(size.group(1)) * _SIZE_UNITS[size.group(2)]
    return sizes


def available_cpus() -> int:
    """The CPUs that the scheduler may run this process on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def read_cpu_quota(root: Path) -> float | None:
    """CPUs' worth of time that the control groups grant this process; None if unlimited."""
    quotas = []
    for folder in _cgroup_folders(root, "cpu"):
        words = (read_text(folder / "cpu.max") or "").split()
        if not words:
            words = [read_text(folder / f"cpu.cfs_{name}_us") or "" for name in ("quota", "period")]
        # "max" (version 2) and -1 (version 1) mean unlimited.
        with contextlib.suppress(ValueError, IndexError, ZeroDivisionError):
            quota = int(words[0]) / int(words[1])
            if quota > 0:
                quotas.append(quota)
    return min(quotas, default=None)


def usable_cores(root: Path, environment: Mapping[str, str]) -> int:
    """Threads that a kernel may use: SCHEDENV_CORES, or the affinity cut to the CPU quota.

    A quota is rounded down, for a thread that is throttled holds all the others up.

    Raises:
        InputError: SCHEDENV_CORES is not a positive integer.
    """
    override = environment.get(CORES_VARIABLE, "").strip()
    if override:
        if not (override.isascii() and override.isdigit()) or int(override) < 1:
            raise InputError(f"{CORES_VARIABLE} must be a positive integer, got {override!r}")
        return int(override)
    quota = read_cpu_quota(root)
    cores = available_cpus()
    return cores if quota is None else max(1, min(cores, math.floor(quota)))


def read_memory_bytes(root: Path) -> int:
    """Main memory, cut to the limit of the control groups."""
    import psutil

    return min([int(psutil.virtual_memory().total), *read_memory_limits(root)])


def read_memory_limits(root: Path) -> list[int]:
    """The control groups' limits on this process's memory, in bytes; empty if unlimited."""
    limits = []
    for folder in _cgroup_folders(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = read_text(folder / name) or ""
            if text.isdigit():
                limits.append(int(text))
    return limits


def read_cpu_times(root: Path) -> tuple[int, int] | None:
    """Ticks that processes asked for since boot, stolen ones included, and the stolen ones.

    None where /proc/stat does not exist or has no such columns.
    """
    for line in (read_text(root / "proc/stat") or "").splitlines():
        words = line.split()
        if words[:1] == ["cpu"] and len(words) >= 9:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, words[1:9])
            return user + nice + system + irq + softirq + steal, steal
    return None


def _first_processor(root: Path) -> dict[str, str]:
    """The fields of the first processor in /proc/cpuinfo; empty if there is no such file."""
    fields = {}
    for line in (read_text(root / "proc/cpuinfo") or "").splitlines():
        if not line.strip():
            break
        key, _, value = line.partition(":")
        fields[key.strip()] = value.strip()
    return fields


def _cgroup_folders(root: Path, controller: str) -> Iterator[Path]:
    """Every folder of the control-group trees that may limit `controller` for this process.

    A limit holds for all groups below it, so the ancestors count too; in a container the path in
    /proc may be the host's, and only its root is mounted.
    """
    base = root / "sys/fs/cgroup"
    for line in (read_text(root / "proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            mounts = [base, base / "unified"]
        elif controller in controllers.split(","):
            mounts = [base / controller, base / controllers]
        else:
            continue
        parts = [part for part in path.split("/") if part not in {"", "..", "."}]
        for mount in dict.fromkeys(mounts):
            for length in range(len(parts), -1, -1):
                yield mount.joinpath(*parts[:length])
