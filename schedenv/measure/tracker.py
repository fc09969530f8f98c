"""A fleet's tracker as its clients see it: who is registered, and a device, waited for with bounds.

The tracker is TVM's (`tvm.rpc.tracker`), and so is the protocol; its own client waits without a
limit for a device, and a minute for a tracker, so the few messages needed are exchanged here.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import select
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from schedenv.errors import DeviceError, InputError

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 9190

_IO_S = 10.0
_POLL_S = 1.0
_RETRY_S = 0.5
_NO_TRACKER = "what listens there is not a TVM tracker"


@dataclass(frozen=True)
class Address:
    """Where something listens."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `HOST:PORT`.

        Raises:
            InputError: It is not of that form.
        """
        host, _, port = text.rpartition(":")
        if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
            raise InputError(f"expected HOST:PORT such as 127.0.0.1:9190, got {text!r}")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it; a name that is not an address counts as not."""
        if self.host == "localhost":
            return True
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(self.host).is_loopback
        return False


@dataclass(frozen=True)
class Fleet:
    """The devices of one kind that a tracker serves.

    Attributes:
        tracker: Where the tracker listens.
        key: What the devices are registered under: all of one key are the same hardware.

    Raises:
        InputError: The key has other characters than letters, digits and `_.-`.
    """

    tracker: Address
    key: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", self.key):
            raise InputError(
                f"expected a key of letters, digits, dots, dashes and underscores, got {self.key!r}"
            )

    @property
    def serve_command(self) -> str:
        """The command that adds a device."""
        return f"schedenv fleet serve --tracker {self.tracker} --key {self.key}"


@dataclass(frozen=True)
class Queue:
    """The devices of one key, as the tracker sees them.

    Attributes:
        devices: Addresses of those registered, busy or not.
        free: How many wait for a client.
        pending: How many clients wait for a device.
    """

    devices: tuple[str, ...]
    free: int
    pending: int

    @property
    def busy(self) -> int:
        """How many serve a client, or have been set aside for one."""
        return max(0, len(self.devices) - self.free)


@dataclass(frozen=True)
class Offer:
    """A device that the tracker has set aside for the one who asked.

    Attributes:
        address: Where its server listens.
        match_key: What the server expects to hear; it forgets it after some seconds.
    """

    address: Address
    match_key: str


def status_command(tracker: Address) -> str:
    """The command that shows what a tracker knows."""
    return f"schedenv fleet status --tracker {tracker}"


def queues(tracker: Address, timeout_s: float = _IO_S) -> dict[str, Queue]:
    """What is registered at the tracker, by key.

    Raises:
        DeviceError: The tracker cannot be reached, or is none.
    """
    try:
        return _queues(tracker, timeout_s)
    except OSError as error:
        raise _unreachable(tracker, error) from None


def wait_for_device(fleet: Fleet, *, none_s: float, busy_s: float) -> Offer:
    """Wait for a device of the fleet to be free.

    Args:
        fleet: Which devices.
        none_s: How long to wait while none is registered, or the tracker cannot be reached.
        busy_s: How long to wait while all are busy.

    Raises:
        DeviceError: The wait was in vain; the message says what was seen last.
    """
    patience = _Patience(fleet, none_s, busy_s)
    while True:
        try:
            with _connect(fleet.tracker, _IO_S) as connection:
                return _request(connection, fleet, patience)
        except OSError as error:
            patience.check(error)
            time.sleep(_RETRY_S)


class _Patience:
    """When to stop waiting for a device."""

    def __init__(self, fleet: Fleet, none_s: float, busy_s: float) -> None:
        self._fleet, self._none_s, self._busy_s = fleet, none_s, busy_s
        self._started_s = self._registered_s = time.monotonic()

    def check(self, seen: Queue | OSError) -> None:
        """Give up if it is time to, given what the tracker says (or that it says nothing)."""
        now_s = time.monotonic()
        if isinstance(seen, Queue) and seen.devices:
            self._registered_s = now_s
        if now_s - self._started_s < self._busy_s and now_s - self._registered_s < self._none_s:
            return
        if isinstance(seen, OSError):
            raise _unreachable(self._fleet.tracker, seen, self._fleet.key, self._none_s)
        limit_s = self._busy_s if seen.devices else self._none_s
        raise DeviceError(
            f"no device of key {self._fleet.key!r} came free within {limit_s:.3g} s at the tracker "
            f"{self._fleet.tracker} ({len(seen.devices)} registered, {seen.free} free, "
            f"{seen.pending} clients waiting); add one with: {self._fleet.serve_command}, or look "
            f"with: {status_command(self._fleet.tracker)}"
        )


def _request(connection: socket.socket, fleet: Fleet, patience: _Patience) -> Offer:
    from tvm.rpc import base

    base.sendjson(connection, [base.TrackerCode.REQUEST, fleet.key, "", 1])
    while not select.select([connection], [], [], _POLL_S)[0]:
        patience.check(_queues(fleet.tracker, _IO_S).get(fleet.key, Queue((), 0, 0)))
    code, value = base.recvjson(connection)
    if code != base.TrackerCode.SUCCESS:
        raise OSError(f"it refused the request with code {code}")
    host, port, match_key = value
    return Offer(Address(host, port), match_key)


def _queues(tracker: Address, timeout_s: float) -> dict[str, Queue]:
    from tvm.rpc import base

    with _connect(tracker, timeout_s) as connection:
        base.sendjson(connection, [base.TrackerCode.SUMMARY])
        _, summary = base.recvjson(connection)
        return _read_summary(summary)


def _read_summary(summary: dict[str, Any]) -> dict[str, Queue]:
    devices: dict[str, list[str]] = {key: [] for key in summary["queue_info"]}
    for server in summary["server_info"]:
        _, _, key = server["key"].partition(":")
        devices.setdefault(key, []).append(":".join(map(str, server["addr"])))
    counts = summary["queue_info"]
    return {
        key: Queue(
            tuple(sorted(devices[key])),
            counts.get(key, {}).get("free", 0),
            counts.get(key, {}).get("pending", 0),
        )
        for key in sorted(devices)
    }


@contextlib.contextmanager
def _connect(tracker: Address, timeout_s: float) -> Iterator[socket.socket]:
    """A connection that has shaken hands with the tracker; whatever goes wrong is an OSError."""
    from tvm.rpc import base

    with socket.create_connection((tracker.host, tracker.port), timeout_s) as connection:
        connection.sendall(struct.pack("<i", base.RPC_TRACKER_MAGIC))
        (magic,) = struct.unpack("<i", base.recvall(connection, 4))
        if magic != base.RPC_TRACKER_MAGIC:
            raise OSError(_NO_TRACKER)
        try:
            yield connection
        except (ValueError, TypeError, LookupError, AttributeError):
            # Its answer is not JSON, or not of the shape that a tracker's has.
            raise OSError(_NO_TRACKER) from None


def _unreachable(
    tracker: Address, error: OSError, key: str | None = None, waited_s: float | None = None
) -> DeviceError:
    reason: Any = error.strerror or error
    wanted = f"to find devices of key {key!r}, " if key is not None else ""
    waited = f" within {waited_s:.3g} s" if waited_s is not None else ""
    return DeviceError(
        f"{wanted}the tracker at {tracker} cannot be reached{waited} ({reason}); start one with: "
        f"schedenv fleet tracker --host {tracker.host} --port {tracker.port}, or look with: "
        f"{status_command(tracker)}"
    )
