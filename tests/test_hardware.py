import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from schedenv import hardware
from schedenv.errors import InputError
from schedenv.hardware import Hardware

MACHINE = Hardware(
    cpu_model="Imaginary 9000",
    mcpu="znver5",
    cores=2,
    vector_bits=512,
    l1d_bytes=48 << 10,
    l2_bytes=1 << 20,
    l3_bytes=32 << 20,
    memory_bytes=16 << 30,
)


def write(root: Path, path: str, text: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def cpuinfo(root: Path, *lines: str) -> None:
    second = "processor : 1\nmodel name : the second\nflags : avx512f\n"
    write(root, "proc/cpuinfo", "processor : 0\n" + "\n".join(lines) + "\n\n" + second)


@pytest.fixture
def four_cpus(monkeypatch):
    monkeypatch.setattr(hardware, "available_cpus", lambda: 4)


def test_importing_hardware_does_not_import_tvm():
    code = "import sys, schedenv.hardware; sys.exit('tvm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_detect_describes_this_machine_and_makes_its_target(monkeypatch):
    monkeypatch.delenv(hardware.CORES_VARIABLE, raising=False)
    hardware.detect.cache_clear()
    machine = hardware.detect()
    assert machine.cores >= 1
    assert machine.vector_bits in {128, 256, 512}
    assert machine.memory_bytes > 0
    assert hardware.detect() is machine
    target = hardware.target(machine)
    assert int(target.attrs["num-cores"]) == machine.cores
    assert str(target.attrs["mcpu"]) == machine.mcpu


def test_a_machine_without_proc_and_sys_is_still_described(tmp_path):
    machine = hardware.read_machine(tmp_path, {}, mcpu="generic")
    assert machine.cpu_model
    assert machine.cores == hardware.available_cpus()
    assert (machine.l1d_bytes, machine.l2_bytes, machine.l3_bytes) == (None, None, None)
    assert machine.memory_bytes > 0


def test_fingerprint_is_stable_and_fit_for_a_file_name():
    assert MACHINE.fingerprint == "znver5-2c-512b-4e2842e39214"
    assert "/" not in dataclasses.replace(MACHINE, mcpu="odd/name").fingerprint


def test_fingerprint_ignores_memory_alone():
    for name, value in {
        "cpu_model": "other",
        "mcpu": "other",
        "cores": 3,
        "vector_bits": 256,
        "l1d_bytes": None,
        "l2_bytes": 5,
        "l3_bytes": None,
    }.items():
        assert dataclasses.replace(MACHINE, **{name: value}).fingerprint != MACHINE.fingerprint
    assert dataclasses.replace(MACHINE, memory_bytes=1).fingerprint == MACHINE.fingerprint


def test_to_dict_is_json_with_the_fingerprint():
    data = json.loads(json.dumps(MACHINE.to_dict()))
    assert data.pop("fingerprint") == MACHINE.fingerprint
    assert Hardware(**data) == MACHINE


@pytest.mark.parametrize(
    ("dtype", "lanes"),
    [("float32", 16), ("float64", 8), ("int8", 64), ("bfloat16", 32), ("bool", 64), ("int4", 64)],
)
def test_vector_lanes(dtype, lanes):
    assert MACHINE.vector_lanes(dtype) == lanes


def test_vector_lanes_refuses_what_is_no_element_type():
    with pytest.raises(InputError, match="expected an element type such as 'float32', got 'void'"):
        MACHINE.vector_lanes("void")


def test_kernel_environment():
    assert hardware.kernel_environment(MACHINE) == {
        "TVM_NUM_THREADS": "2",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }


def test_threads_of_a_worker_stop_spinning_before_the_next_one_runs_a_kernel():
    environment = hardware.worker_environment(MACHINE)
    spins = environment.pop("TVM_THREAD_POOL_SPIN_COUNT")
    assert 0 < int(spins) < 300_000
    assert environment == hardware.kernel_environment(MACHINE)


@pytest.mark.parametrize(
    ("line", "bits"),
    [
        ("flags : fpu sse2 avx avx2 avx512f", 512),
        ("flags : fpu sse2 avx avx2", 256),
        ("flags : fpu sse2", 128),
        ("Features : fp asimd sve", 128),
    ],
)
def test_vector_bits_of_the_first_processor(tmp_path, line, bits):
    cpuinfo(tmp_path, line)
    assert hardware.read_vector_bits(tmp_path) == bits


@pytest.mark.parametrize(("machine", "bits"), [("AMD64", 256), ("x86_64", 256), ("arm64", 128)])
def test_vector_bits_without_cpuinfo(tmp_path, machine, bits):
    assert hardware.read_vector_bits(tmp_path, machine) == bits


def test_cpu_model_on_x86_and_arm(tmp_path):
    cpuinfo(tmp_path, "model name : Some CPU: fast")
    assert hardware.read_cpu_model(tmp_path) == "Some CPU: fast"
    cpuinfo(tmp_path, "CPU implementer : 0x41", "CPU part : 0xd40")
    assert hardware.read_cpu_model(tmp_path) == "ARM implementer 0x41 part 0xd40"


def test_caches_leave_instructions_and_nonsense_out(tmp_path):
    rows = [
        ("1", "Data", "48K"),
        ("1", "Instruction", "32K"),
        ("2", "Unified", "2M"),
        ("3", "Unified", "?"),
    ]
    for index, (level, kind, size) in enumerate(rows):
        folder = f"sys/devices/system/cpu/cpu0/cache/index{index}"
        write(tmp_path, f"{folder}/level", level + "\n")
        write(tmp_path, f"{folder}/type", kind + "\n")
        write(tmp_path, f"{folder}/size", size + "\n")
    assert hardware.read_caches(tmp_path) == {1: 48 << 10, 2: 2 << 20}


def test_quota_of_version_2_is_the_tightest_of_the_ancestors(tmp_path, four_cpus):
    write(tmp_path, "proc/self/cgroup", "0::/pod/box\n")
    write(tmp_path, "sys/fs/cgroup/pod/cpu.max", "250000 100000\n")
    write(tmp_path, "sys/fs/cgroup/pod/box/cpu.max", "max 100000\n")
    assert hardware.read_cpu_quota(tmp_path) == 2.5
    assert hardware.usable_cores(tmp_path, {}) == 2


def test_quota_of_version_1_below_one_cpu_leaves_one(tmp_path, four_cpus):
    write(tmp_path, "proc/self/cgroup", "4:cpu,cpuacct:/host/path\n0::/\n")
    write(tmp_path, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000\n")
    write(tmp_path, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n")
    assert hardware.read_cpu_quota(tmp_path) == 0.5
    assert hardware.usable_cores(tmp_path, {}) == 1


@pytest.mark.parametrize("text", ["max 100000", "max", "", "100000 0", "x y"])
def test_no_quota(tmp_path, four_cpus, text):
    write(tmp_path, "proc/self/cgroup", "0::/\n1:cpu:/\n")
    write(tmp_path, "sys/fs/cgroup/cpu.max", text)
    write(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
    write(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    assert hardware.read_cpu_quota(tmp_path) is None
    assert hardware.usable_cores(tmp_path, {}) == 4


def test_a_cgroup_path_cannot_leave_its_tree(tmp_path, four_cpus):
    write(tmp_path, "proc/self/cgroup", "0::/../../..\n")
    write(tmp_path, "sys/fs/cgroup/cpu.max", "100000 100000\n")
    assert hardware.usable_cores(tmp_path, {}) == 1


def test_cores_can_be_overridden(tmp_path, four_cpus):
    assert hardware.usable_cores(tmp_path, {"SCHEDENV_CORES": "7"}) == 7
    assert hardware.usable_cores(tmp_path, {"SCHEDENV_CORES": ""}) == 4


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "²"])
def test_an_override_must_be_a_positive_integer(tmp_path, text):
    with pytest.raises(InputError, match="SCHEDENV_CORES must be a positive integer"):
        hardware.usable_cores(tmp_path, {"SCHEDENV_CORES": text})


def test_memory_is_cut_to_the_limits_of_either_version(tmp_path):
    write(tmp_path, "proc/self/cgroup", "4:memory:/a/b\n0::/c\n")
    write(tmp_path, "sys/fs/cgroup/memory/a/memory.limit_in_bytes", "4194304\n")
    write(tmp_path, "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    assert hardware.read_memory_bytes(tmp_path) == 4194304
    write(tmp_path, "sys/fs/cgroup/c/memory.max", "1048576\n")
    assert hardware.read_memory_bytes(tmp_path) == 1048576


def test_cpu_times(tmp_path):
    assert hardware.read_cpu_times(tmp_path) is None
    write(tmp_path, "proc/stat", "cpu  10 1 5 1000 7 2 3 40 0 0\ncpu0 1 1 1 1 1 1 1 1\n")
    assert hardware.read_cpu_times(tmp_path) == (61, 40)
