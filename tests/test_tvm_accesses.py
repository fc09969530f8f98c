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
    """For each dimension, which axes move its index with their second value, and how far."""
    reach = [access.reach(axis, np.array(2.0)) for axis in range(len(block.axes))]
    return [
        {
            axis: float(r[place]) - 1
            for axis, r in zip(block.axes, reach, strict=True)
            if r[place] > 1
        }
        for place in range(len(access.shape))
    ]


def reach(block: BlockAccesses, access: Access, **counts: int) -> list[float]:
    """How far each index reaches while axes take so many values, all others one."""
    covered = np.array([[float(counts.get(axis, 1))] for axis in block.axes])
    return [float(extent[0]) for extent in access.extents(covered)]


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
    assert reach(block, image, v_h=4) == [1, 2, 1, 1]
    assert reach(block, image, v_h=4, v_rh=4) == [1, 4, 1, 1]
    assert reach(block, image, v_h=2, v_rh=2) == [1, 2, 1, 1]
    assert reach(block, weight, v_rh=3, v_rw=2) == [3, 2, 1, 1]


def test_channels_of_one_group_read_the_same(space_of: SpaceOf) -> None:
    block = block_of(space_of("grp:1x8x8x64x64x3x1x1"), "conv2d_nhwc")
    image, weight = block.reads
    # Four groups of 16 channels.
    assert reach(block, image, v_co=16) == [1, 1, 1, 1]
    assert reach(block, image, v_co=16, v_rc=16) == [1, 1, 1, 16]
    assert reach(block, image, v_co=32, v_rc=16) == [1, 1, 1, 32]
    assert reach(block, weight, v_co=32) == [1, 1, 1, 32]


def test_no_index_reaches_further_than_the_buffer(tiny_space: Space) -> None:
    block = block_of(tiny_space, "Z")
    assert reach(block, block.write, v_i=100, v_j=100) == [1, 32, 32]


def test_many_tiles_are_told_at_once(tiny_space: Space) -> None:
    block = block_of(tiny_space, "Z")
    covered = np.ones((5, len(block.axes), 3))
    covered[2, block.axes.index("v_i"), 1] = 4
    rows = block.write.extents(covered)[1]
    assert rows.shape == (5, 3)
    assert rows[2].tolist() == [1, 4, 1]
    assert rows.sum() == 15 + 3


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
    assert reach(block, one, i=8, k=8) == [1]


def test_a_block_whose_indices_are_read_from_a_buffer_is_left_out() -> None:
    from tvm import te

    table = te.placeholder((8, 8), name="table")
    places = te.placeholder((4,), name="places", dtype="int32")
    out = te.compute((4, 8), lambda i, j: table[places[i], j], name="gathered")
    assert "gathered" not in accesses(tvm_adapter.module_from_tensors([table, places, out]))


def test_a_remainder_touches_one_element_at_least() -> None:
    access = Access(
        buffer="table", shape=(4,), item_bytes=4, axes=("i",),
        indices=(lambda values: (values["i"] + 1) % 4,), forwards=np.array([[True]]),
    )  # fmt: skip
    assert [float(access.reach(0, np.array(count))[0]) for count in (1.0, 3.0, 4.0)] == [1, 3, 1]


def test_a_block_whose_indices_are_not_of_its_axes_alone_is_left_out() -> None:
    from tvm.script import from_source, ir, tirx

    source = """@I.ir_module
class Module:
    @T.prim_func(s_tir=True)
    def main(
        table: T.Buffer((16,), "float32"), out: T.Buffer((4,), "float32"), start: T.int32
    ):
        for i in range(4):
            with T.sblock("copied"):
                v_i = T.axis.spatial(4, i)
                out[v_i] = table[v_i + start]
"""
    assert not accesses(from_source(source, {"I": ir, "T": tirx}))
