"""The memory that kernels are timed on: laid out the same way for every candidate and process.

How a kernel's buffers lie to each other modulo the page size decides which of its loads wait for
its stores (the processor compares the low twelve bits of their addresses first, "4K aliasing").
One schedule of a 256 x 256 x 256 product runs 2.6 times slower when each buffer begins 4416 bytes
further than where the last one ended, and 1.7 times slower or not on what `malloc` happens to
give: two equal kernels on two sets of buffers are then two different kernels. Large buffers that
come from the system, as those of TVM's memory pool do, all begin at one offset in a page; so do
these.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def on_pages(arrays: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
    """Copies of arrays in one block of memory, one after the other, each beginning on a page.

    Args:
        arrays: Of any shapes and dtypes; none is empty.

    Returns:
        Writable C-contiguous copies, in the same order.
    """
    page_bytes = mmap.PAGESIZE
    pages = [-(-array.nbytes // page_bytes) for array in arrays]
    block = np.empty((sum(pages) + 1) * page_bytes, dtype=np.uint8)
    start = -block.ctypes.data % page_bytes
    copies = []
    for array, count in zip(arrays, pages, strict=True):
        copy = block[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        copy[...] = array
        copies.append(copy)
        start += count * page_bytes
    return copies
