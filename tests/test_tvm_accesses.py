"""Which elements a block touches when its axes move."""

from collections.abc import Callable

import numpy as np

from schedenv import tvm_adapter
from schedenv.space import Space
from schedenv.tvm_accesses import Access, BlockAccesses, accesses

SpaceOf = Callable[[str], Space]


def block_of(space: Space, name: str) -> BlockAccesses:
    return accesses(space.mod)[name]


def steps(block: BlockAccesses, access: Access) -> list[dict[str, float]]:
    """For each dimension, which axes move its index, and how far."""
    return [
        {axis: step for axis, step in zip(block.axes, row, strict=True) if step}
        for row in access.steps.tolist()
    ]


def test_a_product_reads_rows_and_columns(tiny_space: Space) -> None:
    block = block_of(tiny_space, "Z")
    assert dict(zip(block.axes, block.extents, strict=True)) == {
        "v_b": 1, "v_i": 32, "v_j": 32, "v_k": 32
    }  # fmt: skip
    left, right = block.reads
    assert steps(block, left) == [{}, {"v_i": 1}, {"v_k": 1}]
    assert steps(block, right) == [{}, {"v_k": 1}, {"v_j": 1}]
    assert steps(block, block.write) == [{}, {"v_i": 1}, {"v_j": 1}]
    assert (left.shape, left.item_bytes) == ((1, 32, 32), 4)


def test_a_strided_convolution_moves_by_its_stride(space_of: SpaceOf) -> None:
    block = block_of(space_of("dep:1x14x14x32x3x2x1"), "depth_conv2d_nhwc")
    image, _ = block.reads
    assert steps(block, image) == [
        {}, {"v_h": 2, "v_rh": 1}, {"v_w": 2, "v_rw": 1}, {"v_c": 1}
    ]  # fmt: skip


def test_a_transposed_convolution_moves_by_halves_and_backwards(space_of: SpaceOf) -> None:
    block = block_of(space_of("t2d:1x4x4x32x32x4x2x1"), "conv2d_transpose_nhwc")
    image, weight = block.reads
    assert set(steps(block, image)[1]) == {"v_h", "v_rh"}
    assert all(0 < step < 1 for step in steps(block, image)[1].values())
    assert steps(block, weight)[0] == {"v_rh": 1}
    assert np.isfinite(image.steps).all()
    assert (weight.steps >= 0).all()


def test_what_the_block_writes_is_not_among_its_reads(tiny_space: Space) -> None:
    for block in accesses(tiny_space.mod).values():
        assert block.write.buffer not in {read.buffer for read in block.reads}


def test_a_buffer_of_no_dimension_is_one_element() -> None:
    from tvm import te

    rows, factor = te.placeholder((8, 8), name="rows"), te.placeholder((), name="factor")
    k = te.reduce_axis((0, 8), name="k")
    out = te.compute((8,), lambda i: te.sum(rows[i, k] * factor[()], axis=k), name="out")
    block = accesses(tvm_adapter.module_from_tensors([rows, factor, out]))["out"]
    one = next(read for read in block.reads if read.buffer == "factor")
    assert one.shape == (1,)
    assert one.steps.tolist() == [[0.0, 0.0]]


def test_a_block_whose_indices_are_read_from_a_buffer_is_left_out() -> None:
    from tvm import te

    table = te.placeholder((8, 8), name="table")
    places = te.placeholder((4,), name="places", dtype="int32")
    out = te.compute((4, 8), lambda i, j: table[places[i], j], name="gathered")
    assert "gathered" not in accesses(tvm_adapter.module_from_tensors([table, places, out]))
