import importlib
import json

import pytest
import typer
from typer.testing import CliRunner

from schedenv.calibration import Noise, Peaks
from schedenv.doctor import Check, Report
from schedenv.hardware import Hardware

command = importlib.import_module("schedenv.cli.doctor")
app = typer.Typer()
app.command()(command.doctor)

MACHINE = Hardware("Imaginary [9000]", "znver5", 2, 512, 48 << 10, 1 << 20, None, 24 << 30)
PEAKS = Peaks(
    4.5e11, 2.3e11, 3.6e10, 3e-4, "2026-01-01T00:00:00+00:00", MACHINE.fingerprint, "0.27.0"
)
NOISE = Noise(1.0e-4, 1.01e-4, 0.05, 100)
VERSIONS = {"python": "3.11.7", "apache-tvm": "0.27.0"}
GOOD = Check("python", "ok", "3.11.7")
WARNING = Check("extra vendor", "warn", "not installed: onnx", "pip install 'schedenv[vendor]'")
FAILURE = Check("tvm", "fail", "broken [pair]", "pip install 'x>=0.1.14.post0,<0.1.15'" + " y" * 60)


@pytest.fixture
def invoke(monkeypatch):
    """Run the command on a report; returns its result and the arguments of `diagnose`."""

    def run(report, *arguments):
        asked = {}

        def diagnose(**options):
            asked.update(options)
            return report

        monkeypatch.setattr(command, "diagnose", diagnose)
        return CliRunner().invoke(app, list(arguments)), asked

    return run


def test_a_healthy_machine_exits_with_0(invoke):
    result, asked = invoke(Report(MACHINE, VERSIONS, PEAKS, None, (GOOD,)))
    assert result.exit_code == 0, result.output
    assert asked == {"noise": False, "refresh": False}
    for text in (
        "Imaginary [9000] (znver5)",
        "48 KiB",
        "1 MiB",
        "unknown",
        "24 GiB",
        "450 GFLOP/s",
        "230 GFLOP/s",
        "36.0 GB/s",
        "0.27.0",
        "Nothing to mend.",
    ):
        assert text in result.stdout


def test_options_are_passed_on(invoke):
    _, asked = invoke(Report(MACHINE, VERSIONS, PEAKS, NOISE, ()), "--noise", "--refresh")
    assert asked == {"noise": True, "refresh": True}


def test_a_warning_exits_with_0_and_shows_its_mend_with_brackets(invoke):
    result, _ = invoke(Report(MACHINE, VERSIONS, PEAKS, None, (GOOD, WARNING)))
    assert result.exit_code == 0
    assert "  extra vendor: pip install 'schedenv[vendor]'" in result.stdout.splitlines()


def test_a_failure_without_hardware_exits_with_1_and_one_line_to_copy(invoke):
    result, _ = invoke(Report(None, VERSIONS, None, None, (FAILURE,)))
    assert result.exit_code == 1
    assert "broken [pair]" in result.stdout
    assert f"  tvm: {FAILURE.mend}" in result.stdout.splitlines()


@pytest.mark.parametrize(
    ("report", "code"),
    [
        (Report(MACHINE, VERSIONS, PEAKS, NOISE, (GOOD, WARNING)), 0),
        (Report(None, VERSIONS, None, None, (FAILURE,)), 1),
    ],
)
def test_json_is_the_whole_of_stdout(invoke, report, code):
    result, _ = invoke(report, "--json")
    assert result.exit_code == code
    assert json.loads(result.stdout) == report.to_dict()
