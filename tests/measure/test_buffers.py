"""The memory that kernels are timed on."""

import mmap

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from schedenv.measure.buffers import on_pages

SHAPES = nps.array_shapes(min_dims=0, max_dims=3, min_side=1, max_side=40)
ARRAYS = nps.arrays(st.sampled_from(["float32", "float64", "int8"]), SHAPES, fill=st.just(1))


@given(st.lists(ARRAYS, max_size=5))
def test_copies_are_equal_and_begin_on_pages_of_their_own(arrays):
    copies = on_pages(arrays)
    starts = [copy.ctypes.data for copy in copies]
    assert all(start % mmap.PAGESIZE == 0 for start in starts)
    for copy, array in zip(copies, arrays, strict=True):
        np.testing.assert_array_equal(copy, array)
        assert copy.dtype == array.dtype
        assert copy.flags.c_contiguous
        assert copy.flags.writeable
    ends = [copy.ctypes.data + copy.nbytes for copy in copies]
    assert all(end <= start for end, start in zip(ends, starts[1:], strict=False))


@given(st.lists(ARRAYS, min_size=1, max_size=3))
def test_the_layout_depends_on_the_sizes_alone(arrays):
    one, other = on_pages(arrays), on_pages(arrays)
    assert [copy.ctypes.data - one[0].ctypes.data for copy in one] == [
        copy.ctypes.data - other[0].ctypes.data for copy in other
    ]


def test_tvm_runs_on_the_memory_itself():
    tvm = pytest.importorskip("tvm")
    (array,) = on_pages([np.zeros(5, dtype=np.float32)])
    tvm.runtime.from_dlpack(array).copyfrom(np.ones(5, dtype=np.float32))
    assert array.tolist() == [1.0] * 5
