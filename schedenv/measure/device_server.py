"""A device of a fleet, and its tracker: TVM's RPC server and tracker, kept alive and contained.

TVM's server forks a process for each session. When that process dies of a signal, the server's
listening thread dies too, and the device would never be heard of again; here it starts anew.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from schedenv import hardware as hw
from schedenv.calibration import Peaks
from schedenv.errors import InputError, MissingExtraError
from schedenv.fma import reference_kernel
from schedenv.measure.device import DESCRIBE_FUNCTION, REFERENCE_FUNCTION, Description
from schedenv.measure.tracker import Address, Fleet
from schedenv.measure.worker import die_with_parent

Say = Callable[[str], None]


def run_tracker(address: Address, say: Say) -> None:
    """Serve as the tracker until a signal ends the process.

    Raises:
        MissingExtraError: tornado is not installed.
        InputError: The address cannot be bound.
    """
    if importlib.util.find_spec("tornado") is None:
        raise MissingExtraError("tornado", "fleet", "the tracker")
    from tvm.rpc import tracker

    state = _bind(address, lambda: tracker.PopenTrackerServerState(*_binding(address), silent=True))
    say(f"tracker listening on {address}; stop it with Ctrl-C")
    _end_on_signals()
    state.thread.join()


def serve(fleet: Fleet, address: Address, hardware: hw.Hardware, peaks: Peaks, say: Say) -> None:
    """Serve this machine as a device until a signal ends the process.

    Args:
        fleet: Where to register, and under which key.
        address: Where to listen; clients are told this port, and the host as the tracker sees it.
        hardware: This machine; kernels get a thread for each of its cores.
        peaks: Its measured limits.
        say: Told what happens, a line at a time.

    Raises:
        InputError: The address cannot be bound.
    """
    os.environ.update(hw.worker_environment(hardware))
    import tvm
    from tvm.rpc import server

    description = Description(hardware, peaks, importlib.metadata.version("apache-tvm"))
    text = msgspec.json.encode(description).decode()
    # Compiled here, once; run only in sessions, for the threads of a pool do not survive a fork.
    reference = reference_kernel(hardware)
    tvm.register_global_func(DESCRIBE_FUNCTION, lambda: text)
    tvm.register_global_func(REFERENCE_FUNCTION, reference.time_s)
    os.register_at_fork(after_in_child=_contain_session)
    threading.excepthook = lambda event: say(f"{event.exc_value}; serving again")
    _end_on_signals()
    home = Path.cwd()
    first = True
    while True:
        state = _bind(
            address,
            lambda: server.PopenRPCServerState(
                *_binding(address),
                key=fleet.key,
                tracker_addr=(fleet.tracker.host, fleet.tracker.port),
                silent=True,
            ),
        )
        if first:
            say(f"serving {hardware.fingerprint} on {address} as {fleet.key!r}; stop with Ctrl-C")
            first = False
        state.thread.join()
        state.sock.close()
        # TVM leaves a session's folder, which it removes, only after a session that ended well.
        os.chdir(home)


def _binding(address: Address) -> tuple[str, int, int]:
    return address.host, address.port, address.port + 1


def _bind(address: Address, start: Callable[[], Any]) -> Any:
    try:
        return start()
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot listen on {address} ({error}); choose another --host or --port"
        ) from None


def _contain_session() -> None:
    """In a session's process: die with the server, and of SIGTERM even inside a kernel."""
    die_with_parent()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end_on_signals() -> None:
    """End at once, with every process started here: TVM's threads would keep this one alive."""

    def end(number: int, _: object) -> None:
        import psutil

        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        os._exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
