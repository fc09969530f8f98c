import importlib.metadata
import json
import time

import pytest

from schedenv import calibration, hardware
from schedenv.errors import InstallError, MachineError
from schedenv.hardware import Hardware

MACHINE = Hardware("Imaginary 9000", "znver5", 2, 512, 48 << 10, 1 << 20, 32 << 20, 16 << 30)
RATES = {
    "flops_per_s": 2e11,
    "one_core_flops_per_s": 1e11,
    "copy_bytes_per_s": 1e10,
    "reference_s": 3e-4,
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("SCHEDENV_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def calls(monkeypatch):
    """Stand-in for the measuring process; counts how often it ran."""
    made = []

    def run(what, machine):
        made.append(what)
        return RATES

    monkeypatch.setattr(calibration, "_run_child", run)
    return made


@pytest.fixture
def child_code(monkeypatch, tmp_path):
    """Replace the child's interpreter by a shell script."""

    def use(script: str) -> None:
        path = tmp_path / "python"
        path.write_text("#!/bin/sh\n" + script + "\n")
        path.chmod(0o755)
        monkeypatch.setattr(calibration.sys, "executable", str(path))

    return use


def test_peaks_are_measured_once_and_again_on_request(calls, cache):
    first = calibration.peaks(MACHINE)
    assert first.flops_per_s == 2e11
    assert first.fingerprint == MACHINE.fingerprint
    assert first.tvm_version == importlib.metadata.version("apache-tvm")
    assert calibration.peaks(MACHINE) == first
    assert len(calls) == 1
    calibration.peaks(MACHINE, refresh=True)
    assert len(calls) == 2
    assert [file.suffix for file in cache.iterdir()] == [".json"]


@pytest.mark.parametrize(
    "change",
    [
        {"flops_per_s": "fast"},
        {"flops_per_s": -1.0},
        {"copy_bytes_per_s": None},
        {"fingerprint": "another"},
        {"tvm_version": "0.1"},
        {"surplus": 1},
    ],
)
def test_a_cache_that_cannot_be_right_is_measured_anew(calls, cache, change):
    good = calibration.peaks(MACHINE)
    (file,) = cache.iterdir()
    file.write_text(json.dumps({**json.loads(file.read_bytes()), **change}))
    again = calibration.peaks(MACHINE)
    assert len(calls) == 2
    assert again.flops_per_s == good.flops_per_s
    calibration.peaks(MACHINE)
    assert len(calls) == 2


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff\x00"])
def test_a_damaged_cache_is_measured_anew(calls, cache, damage):
    calibration.peaks(MACHINE)
    (file,) = cache.iterdir()
    file.write_bytes(damage)
    assert calibration.peaks(MACHINE).flops_per_s == 2e11
    assert len(calls) == 2


def test_other_hardware_has_its_own_cache(calls, cache):
    calibration.peaks(MACHINE)
    calibration.peaks(Hardware(**{**vars(MACHINE), "cores": 1}))
    assert len(list(cache.iterdir())) == 2


def test_a_cache_that_cannot_be_written_still_gives_peaks(calls, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SCHEDENV_CACHE_DIR", str(tmp_path / "file" / "below"))
    assert calibration.peaks(MACHINE).flops_per_s == 2e11


def test_a_child_that_hangs_is_stopped(child_code, monkeypatch):
    child_code("exec sleep 60")
    monkeypatch.setattr(calibration, "DEADLINE_S", 0.2)
    start_s = time.monotonic()
    with pytest.raises(MachineError, match="took more than 0 s and was stopped"):
        calibration.peaks(MACHINE)
    assert time.monotonic() - start_s < 30


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("kill -SEGV $$", "failed (killed by SIGSEGV): no message"),
        ("echo trouble >&2; exit 3", "failed (exit status 3): trouble"),
        ("echo not json", "failed (exit status 0): no message"),
        ("exit 0", "failed (exit status 0): no message"),
    ],
)
def test_a_child_that_fails_says_how(child_code, script, message):
    child_code(script)
    with pytest.raises(MachineError) as caught:
        calibration.peaks(MACHINE)
    assert message in str(caught.value)


def test_the_child_runs_with_the_environment_for_kernels(child_code):
    child_code(
        'echo "{\\"median_a_s\\": $TVM_NUM_THREADS, \\"median_b_s\\": $OMP_NUM_THREADS,'
        ' \\"spread\\": $OPENBLAS_NUM_THREADS, \\"samples\\": $MKL_NUM_THREADS}"'
    )
    noise = calibration.noise(MACHINE)
    assert (noise.median_a_s, noise.median_b_s, noise.spread, noise.samples) == (2, 1, 1, 1)
    assert noise.difference == 1.0


def test_a_broken_installation_is_refused_before_anything_runs(calls, monkeypatch):
    monkeypatch.setattr(
        importlib.metadata, "version", {"apache-tvm": "0.27.0", "apache-tvm-ffi": "0.1.15"}.get
    )
    with pytest.raises(InstallError):
        calibration.peaks(MACHINE)
    with pytest.raises(InstallError):
        calibration.noise(MACHINE)
    assert not calls


@pytest.mark.parametrize("vector_bits", [128, 256, 512])
def test_every_tile_compiles_and_computes_what_it_should(vector_bits):
    import numpy as np
    import tvm

    from schedenv import fma, tvm_adapter

    machine = Hardware(**{**vars(hardware.detect()), "vector_bits": vector_bits})
    rows = fma.tile_rows(machine)[0]
    columns = 2 * machine.vector_lanes("float32")
    module = tvm_adapter.build(fma.module(2, rows, columns, 3), hardware.target(machine))
    random = np.random.default_rng(1)
    a = random.integers(-3, 4, (2, 256, rows)).astype("float32")
    b = random.integers(-3, 4, (2, 256, columns)).astype("float32")
    out = tvm.runtime.tensor(np.full((2, rows, columns), np.nan, "float32"))
    module["main"](tvm.runtime.tensor(a), tvm.runtime.tensor(b), out)
    np.testing.assert_array_equal(out.numpy(), 3 * np.einsum("pki,pkj->pij", a, b))


def test_a_real_calibration():
    peaks = calibration.peaks(hardware.detect())
    assert peaks.flops_per_s >= peaks.one_core_flops_per_s > 0
    assert peaks.copy_bytes_per_s > 0
    assert calibration.peaks(hardware.detect()) == peaks
