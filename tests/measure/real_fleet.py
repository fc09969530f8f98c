"""A real fleet on loopback: TVM's tracker and servers, started by the command line."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil

from schedenv.measure.tracker import Address, Fleet, Queue, queues

from .support import wait_until

PROGRAM = (sys.executable, "-c", "from schedenv.cli import main; main()")
KEY = "test"
START_S = 180.0


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


class Service:
    """One process of the fleet, and all that it starts."""

    def __init__(self, log: Path, *command: str) -> None:
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def tree(self) -> list[int]:
        own = psutil.Process(self.process.pid)
        return [own.pid, *(child.pid for child in own.children(recursive=True))]

    def wait_for(self, text: str) -> None:
        def said() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return re.search(text, self.log.read_text()) is not None

        assert wait_until(said, START_S), self.log.read_text()

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class RealFleet:
    """A tracker and servers, each of which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.address = Address("127.0.0.1", free_port())
        self.fleet = Fleet(self.address, KEY)
        self.services: list[Service] = []
        self.tracker = self.start_tracker()

    def start_tracker(self) -> Service:
        self.tracker = self._start("fleet", "tracker", "--port", str(self.address.port))
        self.tracker.wait_for("tracker listening on")
        return self.tracker

    def start_servers(self, count: int) -> list[Service]:
        servers = [
            self._start(
                "fleet", "serve", "--tracker", str(self.address), "--key", KEY,
                "--port", str(free_port()),
            )
            for _ in range(count)
        ]  # fmt: skip
        for server in servers:
            server.wait_for("serving ")
        self.wait_for_queue(lambda queue: len(queue.devices) >= count)
        return servers

    def start_plain_server(self) -> Service:
        """A server of TVM's own, which does not say what it is."""
        port = str(free_port())
        words = ["-m", "tvm.exec.rpc_server", "--tracker", str(self.address), "--key", KEY]
        server = self._run(
            sys.executable, *words, "--host", "127.0.0.1", "--port", port, "--port-end",
            str(int(port) + 1),
        )  # fmt: skip
        self.wait_for_queue(lambda queue: len(queue.devices) >= 1)
        return server

    def queue(self) -> Queue:
        return queues(self.address).get(KEY, Queue((), 0, 0))

    def wait_for_queue(self, condition: Callable[[Queue], bool]) -> None:
        assert wait_until(lambda: condition(self.queue()), START_S), self.queue()

    def close(self) -> None:
        for service in self.services:
            service.kill()

    def _start(self, *words: str) -> Service:
        return self._run(*PROGRAM, *words)

    def _run(self, *command: str) -> Service:
        service = Service(self._folder / f"{len(self.services)}.log", *command)
        self.services.append(service)
        return service
