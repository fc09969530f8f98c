"""What a device of a fleet says of itself, and a session on it as its client sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from schedenv.calibration import Peaks
from schedenv.hardware import Hardware
from schedenv.measure.tracker import Offer
from schedenv.measure.verify import Array

DESCRIBE_FUNCTION = "schedenv.device.describe"
REFERENCE_FUNCTION = "schedenv.device.reference_s"


class Description(msgspec.Struct, frozen=True):
    """A device, as `schedenv fleet serve` describes it to those who connect.

    Attributes:
        hardware: What kernels for it are compiled for.
        peaks: Its measured limits.
        tvm: The version of its apache-tvm; code crosses the wire, so the client's must be equal.
    """

    hardware: Hardware
    peaks: Peaks
    tvm: str


class DeviceSession:
    """A process on a device that runs what it is sent, for as long as the session lasts.

    The device is free again once nothing refers to the session's objects any more, so they do not
    leave this class; `close` drops them all.

    Args:
        offer: The device.
        session_s: When the device ends the session, whatever goes on in it.

    Attributes:
        description: What the device is; None if its server is plain TVM's, which does not say.

    Raises:
        Exception: Of many kinds, whenever the connection fails; here and in every method.
    """

    def __init__(self, offer: Offer, session_s: float) -> None:
        from tvm import rpc

        address = offer.address
        self._session: Any = rpc.connect(
            address.host, address.port, offer.match_key, session_timeout=session_s
        )
        self._device: Any = self._session.cpu()
        self._kernels: dict[int, tuple[Any, Any]] = {}
        self._tensors: list[list[Any]] = []
        self._reference: Callable[[], float] | None = self._function(REFERENCE_FUNCTION)
        describe = self._function(DESCRIBE_FUNCTION)
        self.description = (
            None if describe is None else msgspec.json.decode(str(describe()), type=Description)
        )

    def reference_s(self) -> float | None:
        """Seconds of one call of the reference kernel; None if the server is plain TVM's."""
        return None if self._reference is None else float(self._reference())

    def alive(self) -> bool:
        """Whether the device still answers."""
        # TVM reports a broken connection with the same types as an error of the kernel.
        try:
            self._session.get_function("tvm.rpc.server.upload")
        except Exception:
            return False
        return True

    def upload(self, code: Path) -> None:
        """Send a file."""
        self._session.upload(str(code))

    def load(self, job: int, code: Path) -> None:
        """Make the device compile a kernel whose code was sent."""
        module = self._session.load_module(code.name)
        self._kernels[job] = (module, module["main"])

    def allocate(self, arrays: Sequence[Array]) -> int:
        """Put a kernel's arguments into the device's memory; returns the number of the set."""
        import tvm

        self._tensors.append([tvm.runtime.tensor(array, self._device) for array in arrays])
        return len(self._tensors) - 1

    def poison(self, arguments: int, index: int) -> None:
        """Overwrite one argument of a set with NaN."""
        tensor = self._tensors[arguments][index]
        tensor.copyfrom(np.full(tensor.shape, np.nan, dtype=tensor.dtype))

    def read(self, arguments: int, index: int) -> Array:
        """Fetch one argument of a set."""
        array: Array = self._tensors[arguments][index].numpy()
        return array

    def call(self, job: int, arguments: int) -> None:
        """Run a kernel once."""
        _, function = self._kernels[job]
        function(*self._tensors[arguments])

    def time_s(self, job: int, arguments: int, number: int, count: int) -> list[float]:
        """Samples, each the mean seconds of `number` calls by the device's own clock."""
        module, _ = self._kernels[job]
        evaluator = module.time_evaluator("main", self._device, number=number, repeat=count)
        return [float(sample_s) for sample_s in evaluator(*self._tensors[arguments]).results]

    def close(self) -> None:
        """Give the device back."""
        self._kernels.clear()
        self._tensors.clear()
        self._reference = self._device = self._session = None

    def _function(self, name: str) -> Any:
        try:
            return self._session.get_function(name)
        except Exception:
            if not self.alive():
                raise
            return None
