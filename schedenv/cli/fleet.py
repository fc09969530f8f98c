"""The commands `schedenv fleet tracker | serve | status`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from schedenv import hardware as hw
from schedenv.calibration import Peaks
from schedenv.calibration import peaks as measure_peaks
from schedenv.errors import InputError
from schedenv.measure import device_server
from schedenv.measure.probe import describe
from schedenv.measure.tracker import DEFAULT_HOST, DEFAULT_PORT, Address, Fleet, Queue, queues

app = typer.Typer(
    help="Measure on other machines: TVM's tracker, its devices, and who is there.",
    no_args_is_help=True,
)

DEVICE_PORT = 9090
_NONE_S = 5.0
_BUSY_S = 300.0

_Host = Annotated[str, typer.Option(help="Address to listen on.")]
_Expose = Annotated[
    bool, typer.Option("--expose", help="Allow a --host that other machines can reach.")
]
_Tracker = Annotated[str, typer.Option(metavar="HOST:PORT", help="Where the tracker listens.")]

_DEFAULT_TRACKER = f"{DEFAULT_HOST}:{DEFAULT_PORT}"


@app.command()
def tracker(
    host: _Host = DEFAULT_HOST,
    port: Annotated[int, typer.Option(help="Port to listen on.")] = DEFAULT_PORT,
    expose: _Expose = False,
) -> None:
    """Run the tracker that hands devices to clients, until Ctrl-C."""
    address = Address(host, port)
    _guard(address, expose=expose)
    device_server.run_tracker(address, _say)


@app.command()
def serve(
    key: Annotated[str, typer.Option(help="What to register under: one key, one hardware.")],
    tracker: _Tracker = _DEFAULT_TRACKER,
    host: _Host = DEFAULT_HOST,
    port: Annotated[
        int, typer.Option(help="Port to listen on; clients must reach it under the same number.")
    ] = DEVICE_PORT,
    expose: _Expose = False,
) -> None:
    """Serve this machine as a device, until Ctrl-C."""
    fleet = Fleet(Address.parse(tracker), key)
    address = Address(host, port)
    _guard(address, expose=expose)
    hardware = hw.detect()
    with Console(stderr=True).status("measuring this machine's peaks (once, some 8 seconds)"):
        peaks = measure_peaks(hardware)
    device_server.serve(fleet, address, hardware, peaks, _say)


@app.command()
def status(
    tracker: _Tracker = _DEFAULT_TRACKER,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show the devices that are registered at a tracker, by key."""
    found = queues(Address.parse(tracker))
    if as_json:
        typer.echo(json.dumps({key: _counts(queue) for key, queue in found.items()}, indent=2))
        return
    table = Table("key", "free", "busy", "waiting", "devices", title=f"Tracker {tracker}")
    for key, queue in found.items():
        counts = [str(count) for count in (queue.free, queue.busy, queue.pending)]
        table.add_row(key, *counts, "\n".join(queue.devices))
    Console().print(table)


@dataclasses.dataclass(frozen=True)
class Devices:
    """A fleet, and what its devices are."""

    fleet: Fleet
    hardware: hw.Hardware
    peaks: Peaks


def find_devices(
    tracker: str | None, key: str | None, hardware_file: Path | None
) -> Devices | None:
    """The devices that a command is to measure on; None for this machine.

    Args:
        tracker: Where the tracker listens.
        key: What the devices are registered under.
        hardware_file: Output of `schedenv doctor --json` on a device; None asks a device.

    Raises:
        InputError: An option is missing, or the file cannot be used.
        DeviceError: The tracker or a device does not answer.
    """
    if tracker is None and key is None and hardware_file is None:
        return None
    if tracker is None or key is None:
        raise InputError(
            "expected --tracker HOST:PORT and --key KEY together; "
            f"got only {'--tracker' if tracker else '--key' if key else '--hardware'}"
        )
    fleet = Fleet(Address.parse(tracker), key)
    if not fleet.tracker.is_loopback:
        _say(exposure_warning(fleet.tracker))
    if hardware_file is not None:
        return Devices(fleet, *read_report(hardware_file))
    with Console(stderr=True).status("asking a device what it is"):
        description = describe(fleet, none_s=_NONE_S, busy_s=_BUSY_S)
    if description is None:
        raise InputError(
            f"the devices of key {key!r} are served by plain TVM, which does not say what they "
            "are; run schedenv doctor --json on one of them and give its output as --hardware "
            "FILE, or serve them with: " + fleet.serve_command
        )
    return Devices(fleet, description.hardware, description.peaks)


def read_report(path: Path) -> tuple[hw.Hardware, Peaks]:
    """The hardware and its peaks from the output of `schedenv doctor --json`.

    Raises:
        InputError: It cannot be read, or is not such a report.
    """

    class Report(msgspec.Struct):
        hardware: hw.Hardware
        peaks: Peaks

    try:
        report = msgspec.json.decode(path.read_bytes(), type=Report)
    except (OSError, msgspec.DecodeError) as error:
        raise InputError(
            f"--hardware {path} is not the output of schedenv doctor --json on a device: {error}"
        ) from None
    return report.hardware, report.peaks


def exposure_warning(address: Address) -> str:
    """What to know before something is bound to, or reached at, other than loopback."""
    return (
        f"warning: {address} can be reached from other machines. TVM's RPC protocol is plain text "
        "and asks for no password: whoever connects can run any code here. Use it inside a trusted "
        "network only, or through ssh tunnels (docs/fleet.md)"
    )


def _guard(address: Address, *, expose: bool) -> None:
    """Refuse an address that other machines can reach, unless it is asked for; then warn.

    Raises:
        InputError: It is not loopback, and `--expose` was not given.
    """
    if address.is_loopback:
        return
    if not expose:
        raise InputError(
            f"--host {address.host} can be reached from other machines, and whoever connects can "
            "run any code here; keep 127.0.0.1 and use ssh tunnels (docs/fleet.md), or add "
            "--expose in a trusted network"
        )
    _say(exposure_warning(address))


def _counts(queue: Queue) -> dict[str, object]:
    return {**dataclasses.asdict(queue), "busy": queue.busy}


def _say(text: str) -> None:
    """Standard error at once, a line each, whatever it is connected to."""
    typer.echo(text, err=True)
