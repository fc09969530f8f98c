import importlib.metadata
import json
import subprocess
import sys

import pytest

from schedenv import calibration, doctor, hardware
from schedenv.doctor import Check, Report
from schedenv.errors import MachineError
from schedenv.hardware import Hardware

MACHINE = Hardware("Imaginary 9000", "znver5", 2, 512, 48 << 10, 1 << 20, 32 << 20, 16 << 30)
PEAKS = calibration.Peaks(2e11, 1e11, 1e10, 3e-4, "2026-01-01T00:00:00+00:00", "f", "0.27.0")
NOISE = calibration.Noise(1.0e-4, 1.01e-4, 0.05, 100)


@pytest.fixture
def installed(monkeypatch):
    """Choose what importlib.metadata says is installed."""

    def use(**changes):
        real = importlib.metadata.version

        def version(package):
            if package not in changes:
                return real(package)
            if changes[package] is None:
                raise importlib.metadata.PackageNotFoundError(package)
            return changes[package]

        monkeypatch.setattr(importlib.metadata, "version", version)

    return use


@pytest.fixture
def no_children(monkeypatch):
    run = subprocess.run

    def refuse(command, *arguments, **options):
        # The standard library's platform module may run programs of its own.
        assert command[0] != sys.executable, "a broken TVM must not be run"
        return run(command, *arguments, **options)

    monkeypatch.setattr(subprocess, "run", refuse)


def write(root, path, text):
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def by_name(report: Report) -> dict[str, Check]:
    return {check.name: check for check in report.checks}


@pytest.fixture
def quick(monkeypatch, tmp_path):
    monkeypatch.setenv("SCHEDENV_CACHE_DIR", str(tmp_path / "cache"))
    real = doctor.spin
    monkeypatch.setattr(doctor, "spin", lambda window_s: real(0.01))


def test_the_broken_pair_of_packages_is_named_with_its_mend(installed, no_children):
    installed(**{"apache-tvm": "0.27.0.post1", "apache-tvm-ffi": "0.1.15.post1"})
    assert doctor.check_tvm() == Check(
        "tvm",
        "fail",
        "apache-tvm-ffi 0.1.15.post1 crashes apache-tvm 0.27.0.post1; "
        "expected apache-tvm-ffi>=0.1.14.post0,<0.1.15",
        "pip install 'apache-tvm-ffi>=0.1.14.post0,<0.1.15'",
    )


def test_missing_tvm_is_named_with_its_mend(installed, no_children):
    installed(**{"apache-tvm": None})
    assert doctor.check_tvm() == Check(
        "tvm",
        "fail",
        "the package apache-tvm is not installed",
        "pip install 'apache-tvm==0.27.*' 'apache-tvm-ffi>=0.1.14.post0,<0.1.15'",
    )


def test_a_tvm_that_dies_when_used_is_named_with_its_mend(monkeypatch):
    monkeypatch.setattr(doctor, "_PROBE", "import os; os.kill(os.getpid(), 11)")
    check = doctor.check_tvm()
    assert check.status == "fail"
    assert check.detail == "TVM is installed but does not work: killed by SIGSEGV"
    assert check.mend == (
        "pip install --force-reinstall 'apache-tvm==0.27.*' 'apache-tvm-ffi>=0.1.14.post0,<0.1.15'"
    )


def test_a_tvm_that_hangs_fails(monkeypatch):
    monkeypatch.setattr(doctor, "_PROBE", "import time; time.sleep(60)")
    monkeypatch.setattr(doctor, "_PROBE_DEADLINE_S", 0.2)
    assert doctor.check_tvm().status == "fail"


def test_another_release_of_tvm_is_a_warning(installed, monkeypatch):
    monkeypatch.setattr(doctor, "_PROBE", "")
    installed(**{"apache-tvm": "0.28.0"})
    assert doctor.check_tvm().status == "warn"


@pytest.mark.parametrize("ffi", ["0.1.15", None])
def test_diagnosis_without_a_working_tvm_reports_it_and_goes_on(installed, no_children, quick, ffi):
    installed(**{"apache-tvm": "0.27.0", "apache-tvm-ffi": ffi})
    report = doctor.diagnose(noise=True)
    assert report.failed
    assert (report.hardware, report.peaks, report.noise) == (None, None, None)
    assert report.versions["apache-tvm-ffi"] == (ffi or "missing")
    checks = by_name(report)
    assert checks["tvm"].status == "fail"
    assert {"cores", "memory", "disk", "cache", "quiet", "tvm threads"} <= checks.keys()
    json.loads(json.dumps(report.to_dict()))


def test_diagnosing_a_broken_installation_never_imports_tvm():
    code = (
        "import importlib.metadata as m, sys\n"
        "m.version = lambda name: '0.1.15' if name == 'apache-tvm-ffi' else '0.27.0'\n"
        "from schedenv import doctor\n"
        "assert doctor.diagnose().failed\n"
        "sys.exit('tvm' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_full_diagnosis_is_json(quick):
    report = doctor.diagnose(noise=True)
    data = json.loads(json.dumps(report.to_dict()))
    assert not data["failed"], [check for check in data["checks"] if check["status"] == "fail"]
    assert data["hardware"]["fingerprint"] == data["peaks"]["fingerprint"]
    assert data["noise"]["difference"] >= 0
    assert data["noise"]["spread"] >= 0
    assert data["versions"]["apache-tvm"].startswith("0.27")


def test_a_failed_measurement_is_a_failed_check(monkeypatch, quick):
    def fail(machine, *, refresh):
        raise MachineError("measuring failed")

    monkeypatch.setattr(doctor, "_PROBE", "")
    monkeypatch.setattr(calibration, "peaks", fail)
    report = doctor.diagnose()
    assert report.peaks is None
    assert by_name(report)["measuring"].detail == "measuring failed"
    assert report.failed


def test_a_bad_override_of_the_cores_is_a_failed_check(monkeypatch, quick):
    monkeypatch.setattr(doctor, "_PROBE", "")
    monkeypatch.setenv("SCHEDENV_CORES", "many")
    report = doctor.diagnose()
    assert by_name(report)["cores"].mend == "unset SCHEDENV_CORES"
    assert report.hardware is None
    assert report.failed


def test_missing_extras_are_named_with_their_mend(installed, monkeypatch):
    monkeypatch.setattr(
        importlib.metadata,
        "requires",
        lambda package: [
            "numpy>=1.26",
            'onnx>=1.16; extra == "vendor"',
            'onnxruntime>=1.18 ; extra == "vendor"',
            'pytest[toml]>=8; python_version > "3" and extra == "test"',
        ],
    )
    installed(onnx=None, onnxruntime=None, pytest="9")
    assert doctor.check_extras() == [
        Check(
            "extra vendor",
            "warn",
            "not installed: onnx, onnxruntime",
            "pip install 'schedenv[vendor]'",
        ),
        Check("extra test", "ok", "pytest"),
    ]


def test_the_extras_of_this_package_are_found():
    assert "extra vendor" in {check.name for check in doctor.check_extras()}


@pytest.mark.parametrize(("value", "status"), [(None, "ok"), ("2", "ok"), ("1", "warn")])
def test_tvm_threads(value, status):
    environment = {} if value is None else {"TVM_NUM_THREADS": value}
    check = doctor.check_tvm_threads(environment, 2)
    assert check.status == status
    assert check.mend == ("export TVM_NUM_THREADS=2" if status == "warn" else None)


def test_old_python_fails(monkeypatch):
    assert doctor.check_python().status == "ok"
    monkeypatch.setattr(doctor, "_MINIMUM_PYTHON", (4, 0))
    assert doctor.check_python().status == "fail"


@pytest.mark.parametrize(
    ("quota", "environment", "status"),
    [
        (None, {}, "ok"),
        ("400000", {}, "ok"),
        ("250000", {}, "warn"),
        ("50000", {}, "warn"),
        (None, {"SCHEDENV_CORES": "9"}, "warn"),
    ],
)
def test_cores(tmp_path, monkeypatch, quota, environment, status):
    monkeypatch.setattr(hardware, "available_cpus", lambda: 4)
    write(tmp_path, "proc/self/cgroup", "0::/\n")
    if quota:
        write(tmp_path, "sys/fs/cgroup/cpu.max", f"{quota} 100000\n")
    check = doctor.check_cores(tmp_path, environment)
    assert check.status == status
    assert (check.mend is None) == (status == "ok")


@pytest.mark.parametrize(
    ("gap_s", "lost", "stolen", "status"),
    [
        (0.001, 0.01, 0, "ok"),
        (0.02, 0.01, 0, "warn"),
        (0.001, 0.3, 0, "warn"),
        (0.001, 0.01, 50, "warn"),
    ],
)
def test_quiet(monkeypatch, tmp_path, gap_s, lost, stolen, status):
    times = iter([(1000, 10), (1100, 10 + stolen)])
    monkeypatch.setattr(hardware, "read_cpu_times", lambda root: next(times))
    monkeypatch.setattr(doctor, "spin", lambda window_s: (gap_s, lost))
    check = doctor.check_steal(tmp_path)
    assert check.status == status
    assert check.detail == (
        f"{stolen}% of the CPU time asked for was stolen by the host; "
        f"a busy loop lost {lost:.0%} of its time, {gap_s * 1e3:.1f} ms at once"
    )


def test_quiet_without_proc_says_what_the_loop_saw(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "spin", lambda window_s: (0.0, 0.0))
    assert doctor.check_steal(tmp_path).detail.startswith("a busy loop lost 0%")


def test_spin_gives_shares():
    largest_s, lost = doctor.spin(0.01)
    assert largest_s >= 0
    assert 0 <= lost <= 1


def test_load(monkeypatch):
    monkeypatch.setattr(doctor.os, "getloadavg", lambda: (0.1, 0, 0))
    assert doctor.check_load(2).status == "ok"
    monkeypatch.setattr(doctor.os, "getloadavg", lambda: (3.0, 0, 0))
    assert doctor.check_load(2).status == "warn"


def test_governor(tmp_path):
    path = "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
    assert doctor.check_governor(tmp_path).status == "ok"
    write(tmp_path, path, "performance\n")
    assert doctor.check_governor(tmp_path).status == "ok"
    write(tmp_path, path, "powersave\n")
    assert doctor.check_governor(tmp_path).mend == (
        "sudo cpupower frequency-set --governor performance"
    )


def test_little_memory_is_a_warning(tmp_path):
    write(tmp_path, "proc/self/cgroup", "0::/\n")
    write(tmp_path, "sys/fs/cgroup/memory.max", str(1 << 29))
    assert doctor.check_memory(tmp_path).detail == "0.5 GiB available"
    assert doctor.check_memory(tmp_path).status == "warn"


def test_cache_and_disk(tmp_path):
    assert doctor.check_cache(tmp_path / "new" / "cache").status == "ok"
    assert doctor.check_disk(tmp_path).detail.endswith("free in the current folder")
    (tmp_path / "file").write_text("")
    check = doctor.check_cache(tmp_path / "file" / "below")
    assert check.status == "warn"
    assert check.mend == "export SCHEDENV_CACHE_DIR=DIR with a folder that you can write to"


def test_peaks_that_disagree_and_noise_are_warnings():
    assert doctor.check_peaks(PEAKS, 2).status == "ok"
    assert doctor.check_peaks(PEAKS, 4).mend == "schedenv doctor --refresh"
    assert doctor.check_noise(NOISE).status == "ok"
    assert doctor.check_noise(calibration.Noise(1.0, 1.1, 0.05, 9)).status == "warn"
    assert doctor.check_noise(calibration.Noise(1.0, 1.0, 0.5, 9)).status == "warn"


def test_only_failures_fail_a_report():
    def report(*checks):
        return Report(MACHINE, {}, PEAKS, NOISE, checks)

    warning = Check("a", "warn", "")
    assert not report(warning).failed
    assert report(warning, Check("b", "fail", "")).failed
