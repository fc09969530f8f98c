"""Rows of a SQLite file whose tree is broken, read from its leaf pages one by one.

SQLite reaches a row through the pages above it; one bad page hides all rows below. The rows
themselves lie in leaf pages that can be read without any other page (file format:
https://www.sqlite.org/fileformat2.html). Rows come unchecked: the caller knows what a row must be.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any

_TABLE_LEAF = 13
_MAGIC = b"SQLite format 3\0"
_LOG_MAGIC = b"\x37\x7f\x06"
_HEADER_BYTES = 100
_LOG_HEADER_BYTES = 32
_FRAME_HEADER_BYTES = 24
_PAGE_SIZES = tuple(1 << power for power in range(9, 17))
_INTEGER_BYTES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


def leaf_rows(main: bytes, log: bytes, max_row_bytes: int) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Every row of every table that a leaf page holds: its rowid and its columns.

    The newest version of a page, from the log, comes before the one in the main file; a row may
    come twice, and a row that was deleted may come too.

    Args:
        main: The file.
        log: Its write-ahead log; may be empty.
        max_row_bytes: Longer rows are left out.
    """
    for page_size in _page_sizes(main, log):
        old = dict(enumerate(_chunks(main, page_size), start=1))
        new = {**old, **_logged(log, page_size)}
        for pages in (new, old) if log else (old,):
            for number, page in pages.items():
                start = _HEADER_BYTES if number == 1 else 0
                yield from _rows(page, start, pages, page_size, max_row_bytes)


def _page_sizes(main: bytes, log: bytes) -> tuple[int, ...]:
    """The page size that a header gives; every possible one if none can be believed."""
    sizes = []
    if main.startswith(_MAGIC):
        sizes.append(int.from_bytes(main[16:18], "big"))
    if log[:3] == _LOG_MAGIC:
        sizes.append(int.from_bytes(log[8:12], "big"))
    for size in sizes:
        if size == 1 or size in _PAGE_SIZES:
            return (65536 if size == 1 else size,)
    return _PAGE_SIZES


def _chunks(data: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size].ljust(size, b"\0")


def _logged(log: bytes, page_size: int) -> dict[int, bytes]:
    """The last complete version of each page in the log, committed or not."""
    found = {}
    step = _FRAME_HEADER_BYTES + page_size
    # Frames of an earlier round of the log have other salts, and older content.
    salts = log[16:24]
    for start in range(_LOG_HEADER_BYTES, len(log) - step + 1, step):
        if log[start + 8 : start + 16] == salts:
            number = int.from_bytes(log[start : start + 4], "big")
            found[number] = log[start + _FRAME_HEADER_BYTES : start + step]
    return found


def _rows(
    page: bytes, start: int, pages: Mapping[int, bytes], usable: int, max_row_bytes: int
) -> Iterator[tuple[int, tuple[Any, ...]]]:
    if len(page) < start + 8 or page[start] != _TABLE_LEAF:
        return
    count = int.from_bytes(page[start + 3 : start + 5], "big")
    for index in range(min(count, usable // 4)):
        at = start + 8 + 2 * index
        cell = int.from_bytes(page[at : at + 2], "big")
        try:
            length, cell = _varint(page, cell)
            rowid, cell = _varint(page, cell)
            if 0 < length <= max_row_bytes:
                yield rowid, _columns(_payload(page, cell, length, pages, usable))
        except (IndexError, ValueError, struct.error):
            continue


def _payload(page: bytes, at: int, length: int, pages: Mapping[int, bytes], usable: int) -> bytes:
    """A row's bytes, the part that overflows into other pages included.

    Raises:
        ValueError: Part of it is missing.
    """
    if length <= usable - 35:
        local = length
    else:
        least = (usable - 12) * 32 // 255 - 23
        local = least + (length - least) % (usable - 4)
        if local > usable - 35:
            local = least
    payload = page[at : at + local]
    following = int.from_bytes(page[at + local : at + local + 4], "big")
    while len(payload) < length:
        overflow = pages.get(following)
        if overflow is None:
            raise ValueError("an overflow page is missing")
        following = int.from_bytes(overflow[:4], "big")
        payload += overflow[4 : 4 + min(usable - 4, length - len(payload))]
    return payload


def _columns(payload: bytes) -> tuple[Any, ...]:
    """Decode a row.

    Raises:
        ValueError: It is no row.
    """
    end, at = _varint(payload, 0)
    if not at <= end <= len(payload):
        raise ValueError("the header is longer than the row")
    kinds = []
    while at < end:
        kind, at = _varint(payload, at)
        kinds.append(kind)
    columns = []
    for kind in kinds:
        value, at = _value(payload, at, kind)
        columns.append(value)
    return tuple(columns)


def _value(payload: bytes, at: int, kind: int) -> tuple[Any, int]:
    """One column and where the next one begins."""
    if kind == 0:
        return None, at
    if kind in {8, 9}:
        return kind - 8, at
    if kind in {10, 11}:
        raise ValueError("a kind of value that no file has")
    if kind == 7:
        return struct.unpack_from(">d", payload, at)[0], at + 8
    size = _INTEGER_BYTES.get(kind, (kind - 12) // 2)
    raw = payload[at : at + size]
    if len(raw) < size:
        raise ValueError("the row ends within a value")
    if kind in _INTEGER_BYTES:
        return int.from_bytes(raw, "big", signed=True), at + size
    return (raw.decode("utf-8", "surrogateescape") if kind % 2 else raw), at + size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of one to nine bytes, and where the next thing begins."""
    number = 0
    for index in range(8):
        byte = data[at + index]
        number = number << 7 | byte & 0x7F
        if byte < 0x80:
            return number, at + index + 1
    return number << 8 | data[at + 8], at + 9
