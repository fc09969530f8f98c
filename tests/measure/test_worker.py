"""What a worker remembers and holds; what it does with candidates is tested in test_local.py."""

from pathlib import Path
from typing import Any

import pytest

from schedenv import tvm_adapter
from schedenv.hardware import Hardware
from schedenv.measure import messages, reference
from schedenv.measure.result import Status
from schedenv.measure.worker import Worker
from schedenv.space import Space
from schedenv.tasks import Task
from schedenv.tasks.memory import argument_bytes

from .support import points_of


def worker_of(task: Task, hardware: Hardware, folder: Path, **weights: Any) -> Worker:
    reference.prepare(task, folder, hardware, 0)
    module = tvm_adapter.module_to_json(task.mod)
    return Worker(messages.Setup(module, hardware, str(folder), None, 1e-4, **weights))


def test_what_becomes_of_an_outline_need_not_be_found_out_by_every_worker(
    tiny_task: Task, tiny_space: Space, hardware: Hardware, tmp_path: Path
) -> None:
    (point,) = points_of(tiny_space, 1)
    worker = worker_of(tiny_task, hardware, tmp_path)
    first = worker.handle(messages.Lower(0, point))
    assert isinstance(first, messages.Lowered)
    assert first.outline is not None
    told = worker.handle(messages.Lower(1, point, {first.outline: "what another one found"}))
    assert isinstance(told, messages.Lowered)
    assert (told.outline, told.code) == (first.outline, "what another one found")
    for job in (0, 1):
        built = worker.handle(messages.Build(job, point))
        assert isinstance(built, messages.Built)
        assert built.status is Status.OK
        ran = worker.handle(messages.Run(job, None))
        assert isinstance(ran, messages.Ran)
        assert ran.status is Status.OK


@pytest.mark.parametrize("copies", [1, 4])
def test_each_call_has_other_copies_of_the_weights_and_the_same_of_the_rest(
    tiny_task: Task, hardware: Hardware, tmp_path: Path, copies: int
) -> None:
    size = copies * argument_bytes(tiny_task.arguments[1])
    worker = worker_of(tiny_task, hardware, tmp_path, weights=(1,), span_bytes=size)
    sets = [next(worker._sets) for _ in range(copies)]
    assert len({id(tensors[1]) for tensors in sets}) == copies
    assert len({id(tensors[0]) for tensors in sets}) == 1
    assert all((tensors[1].numpy() == sets[0][1].numpy()).all() for tensors in sets)
    assert next(worker._sets) is sets[0]
