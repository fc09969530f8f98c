"""The commands of a fleet: what they refuse, what they show, and a run from start to verdict."""

import json
from pathlib import Path

import pytest

from schedenv.calibration import peaks
from schedenv.hardware import Hardware

from ..measure.real_fleet import KEY, RealFleet, free_port
from .conftest import Command


@pytest.mark.parametrize("words", [("tracker",), ("serve", "--key", "k")])
def test_an_address_that_others_can_reach_is_refused_unless_it_is_asked_for(
    words: tuple[str, ...], schedenv: Command
) -> None:
    done = schedenv("fleet", *words, "--host", "0.0.0.0")
    assert done.code == 2
    assert done.err == (
        "error: --host 0.0.0.0 can be reached from other machines, and whoever connects can run "
        "any code here; keep 127.0.0.1 and use ssh tunnels (docs/fleet.md), or add --expose in a "
        "trusted network\n"
    )


def test_exposing_it_all_the_same_prints_a_warning(schedenv: Command) -> None:
    # The address is one of documentation: it passes the guard and cannot be bound.
    done = schedenv("fleet", "tracker", "--host", "192.0.2.1", "--port", "9190", "--expose")
    assert done.code == 2
    warning, error = done.err.splitlines()
    assert warning == (
        "warning: 192.0.2.1:9190 can be reached from other machines. TVM's RPC protocol is plain "
        "text and asks for no password: whoever connects can run any code here. Use it inside a "
        "trusted network only, or through ssh tunnels (docs/fleet.md)"
    )
    assert error.startswith("error: cannot listen on 192.0.2.1:9190 (")
    assert error.endswith("); choose another --host or --port")


def test_a_tracker_without_its_extra_says_which(
    schedenv: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tornado" else real(name)
    )
    done = schedenv("fleet", "tracker")
    assert done.code == 1
    assert done.err == (
        "error: the tracker needs the package 'tornado', which is not installed; run: "
        "pip install 'schedenv[fleet]'\n"
    )


@pytest.mark.parametrize(
    ("words", "got"),
    [
        (("--tracker", "127.0.0.1:9190"), "--tracker"),
        (("--key", "k"), "--key"),
        (("--hardware", "f.json"), "--hardware"),
    ],
)
def test_tracker_and_key_belong_together(
    words: tuple[str, ...], got: str, schedenv: Command, tmp_path: Path
) -> None:
    done = schedenv("tune", "gmm:1x32x32x32", "--out", tmp_path / "run", *words)
    assert done.code == 2
    assert done.err == (
        f"error: expected --tracker HOST:PORT and --key KEY together; got only {got}\n"
    )
    assert not (tmp_path / "run").exists()


def test_a_hardware_file_that_is_none_is_refused(schedenv: Command, tmp_path: Path) -> None:
    file = tmp_path / "hardware.json"
    file.write_text("{}")
    words = ("--tracker", "127.0.0.1:9190", "--key", "k", "--hardware", file)
    done = schedenv("tune", "gmm:1x32x32x32", "--out", tmp_path / "run", *words)
    assert done.code == 2
    assert done.err.startswith(
        f"error: --hardware {file} is not the output of schedenv doctor --json on a device: "
    )


def test_the_status_of_no_tracker_is_an_error(schedenv: Command) -> None:
    port = free_port()
    done = schedenv("fleet", "status", "--tracker", f"127.0.0.1:{port}")
    assert done.code == 1
    assert done.err == (
        f"error: the tracker at 127.0.0.1:{port} cannot be reached (Connection refused); start one "
        f"with: schedenv fleet tracker --host 127.0.0.1 --port {port}, or look with: schedenv "
        f"fleet status --tracker 127.0.0.1:{port}\n"
    )


@pytest.mark.slow
def test_a_task_is_tuned_on_a_fleet_from_start_to_verdict(
    schedenv: Command, tmp_path: Path, hardware: Hardware
) -> None:
    peaks(hardware)
    fleet = RealFleet(tmp_path)
    try:
        fleet.start_servers(2)
        shown = json.loads(schedenv("fleet", "status", "--tracker", fleet.address, "--json").out)
        assert (shown[KEY]["free"], shown[KEY]["busy"], shown[KEY]["pending"]) == (2, 0, 0)
        assert KEY in schedenv("fleet", "status", "--tracker", fleet.address).out
        out = tmp_path / "run"
        done = schedenv(
            "tune", "gmm:1x32x32x32", "--tracker", fleet.address, "--key", KEY,
            "--trials", 6, "--out", out, "--json",
        )  # fmt: skip
        assert done.code == 0, done.err
        best = json.loads(done.out)
        assert best["trials"] == 6
        assert best["hardware"] == hardware.fingerprint
        assert best["tuned"]["latency_us"] > 0
        run = json.loads((out / "run.json").read_text())
        assert run["fleet"] == f"{KEY} at {fleet.address}"
        fleet.wait_for_queue(lambda queue: queue.free == 2)
    finally:
        fleet.close()
