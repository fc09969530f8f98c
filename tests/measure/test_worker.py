"""The worker's buffers; what it does with candidates is tested through the measurer."""

from pathlib import Path

import pytest

from schedenv import tvm_adapter
from schedenv.hardware import Hardware
from schedenv.measure import messages, reference
from schedenv.measure.worker import Worker
from schedenv.tasks import Task
from schedenv.tasks.memory import argument_bytes


@pytest.mark.parametrize("copies", [1, 4])
def test_each_call_has_other_copies_of_the_weights_and_the_same_of_the_rest(
    tiny_task: Task, hardware: Hardware, tmp_path: Path, copies: int
) -> None:
    reference.prepare(tiny_task, tmp_path, hardware, 0)
    worker = Worker(
        messages.Setup(
            tvm_adapter.module_to_json(tiny_task.mod), hardware, str(tmp_path), None, 1e-4,
            weights=(1,), span_bytes=copies * argument_bytes(tiny_task.arguments[1]),
        )
    )  # fmt: skip
    sets = [next(worker._sets) for _ in range(copies)]
    assert len({id(tensors[1]) for tensors in sets}) == copies
    assert len({id(tensors[0]) for tensors in sets}) == 1
    assert all((tensors[1].numpy() == sets[0][1].numpy()).all() for tensors in sets)
    assert next(worker._sets) is sets[0]
