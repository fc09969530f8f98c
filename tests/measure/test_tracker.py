"""What a client makes of a tracker, of none, and of something else that listens there."""

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from schedenv.errors import DeviceError, InputError
from schedenv.measure.tracker import Address, Fleet, Queue, queues, wait_for_device

from .real_fleet import KEY, RealFleet, free_port


@pytest.fixture(scope="module")
def lonely(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealFleet]:
    """A tracker without devices."""
    real = RealFleet(tmp_path_factory.mktemp("fleet"))
    try:
        yield real
    finally:
        real.close()


@pytest.fixture
def impostor() -> Iterator[Callable[[bytes], Address]]:
    """Something that answers every connection with some bytes and nothing else."""
    listening = socket.create_server(("127.0.0.1", 0))
    kept = []

    def start(answer: bytes) -> Address:
        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                kept.append(connection)
                connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        return Address("127.0.0.1", listening.getsockname()[1])

    yield start
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    for connection in kept:
        connection.close()


@pytest.mark.parametrize("text", ["", "9190", "host", "host:", ":9190", "host:0", "host:65536"])
def test_an_address_needs_a_host_and_a_port(text: str) -> None:
    with pytest.raises(InputError) as raised:
        Address.parse(text)
    assert str(raised.value) == f"expected HOST:PORT such as 127.0.0.1:9190, got {text!r}"


def test_an_address_is_written_as_it_is_read() -> None:
    assert str(Address.parse("device-7.lab:9190")) == "device-7.lab:9190"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.7", False),
        ("device-7.lab", False),
        ("127.0.0.1.example.org", False),
    ],
)
def test_only_loopback_counts_as_unreachable_from_elsewhere(host: str, loopback: bool) -> None:
    assert Address(host, 1).is_loopback is loopback


@pytest.mark.parametrize("key", ["", "two words", "a:b", "a\n", "\x1b[2J"])
def test_a_key_that_would_confuse_the_protocol_is_refused(key: str) -> None:
    with pytest.raises(InputError) as raised:
        Fleet(Address("127.0.0.1", 1), key)
    assert str(raised.value) == (
        f"expected a key of letters, digits, dots, dashes and underscores, got {key!r}"
    )


def test_no_tracker_is_an_error_with_the_next_steps() -> None:
    nowhere = Address("127.0.0.1", free_port())
    with pytest.raises(DeviceError) as raised:
        queues(nowhere)
    assert str(raised.value) == (
        f"the tracker at {nowhere} cannot be reached (Connection refused); start one with: "
        f"schedenv fleet tracker --host 127.0.0.1 --port {nowhere.port}, or look with: "
        f"schedenv fleet status --tracker {nowhere}"
    )


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "what listens there is not a TVM tracker"),
        (b"", "timed out"),
        # The right greeting, then a message cut short or of nonsense.
        (b"\x71\xf2\x02\x00", "timed out"),
        (b"\x71\xf2\x02\x00\x04\x00\x00\x00[0, ", "what listens there is not a TVM tracker"),
        (b"\x71\xf2\x02\x00\x02\x00\x00\x00[]", "what listens there is not a TVM tracker"),
        (b"\x71\xf2\x02\x00\x06\x00\x00\x00[0, 1]", "what listens there is not a TVM tracker"),
        (
            b"\x71\xf2\x02\x00\xff\xff\xff\x7f" + b"x" * 99,
            "timed out",
        ),
    ],
)
def test_something_else_that_listens_there_is_an_error_in_bounded_time(
    answer: bytes, reason: str, impostor: Callable[[bytes], Address]
) -> None:
    address = impostor(answer)
    with pytest.raises(DeviceError) as raised:
        queues(address, timeout_s=1.0)
    assert f"the tracker at {address} cannot be reached ({reason}); " in str(raised.value)


def test_waiting_for_a_device_of_an_impostor_is_an_error_in_bounded_time(
    impostor: Callable[[bytes], Address],
) -> None:
    fleet = Fleet(impostor(b"\x71\xf2\x02\x00\x02\x00\x00\x00[]"), KEY)
    with pytest.raises(DeviceError, match="is not a TVM tracker"):
        wait_for_device(fleet, none_s=1.0, busy_s=1.0)


def test_waiting_where_no_device_is_registered_is_an_error_in_bounded_time(
    lonely: RealFleet,
) -> None:
    with pytest.raises(DeviceError) as raised:
        wait_for_device(lonely.fleet, none_s=1.0, busy_s=30.0)
    assert str(raised.value) == (
        f"no device of key '{KEY}' came free within 1 s at the tracker {lonely.address} "
        "(0 registered, 0 free, 1 clients waiting); add one with: schedenv fleet serve --tracker "
        f"{lonely.address} --key {KEY}, or look with: schedenv fleet status --tracker "
        f"{lonely.address}"
    )


def test_a_tracker_without_devices_has_no_queues(tmp_path: Path, lonely: RealFleet) -> None:
    assert queues(lonely.address).get("nobody") is None


def test_a_queue_counts_who_is_neither_free_nor_gone_as_busy() -> None:
    assert Queue(("a:1", "b:2", "c:3"), free=1, pending=4).busy == 2
    # The tracker forgets a device and its place in the queue one after the other.
    assert Queue((), free=1, pending=0).busy == 0
