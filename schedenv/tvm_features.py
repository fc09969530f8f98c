"""MetaSchedule's per-store features of scheduled programs.

Beside `schedenv.tvm_adapter` and `schedenv.tvm_database`, the only module that touches TVM
internals that have moved before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from schedenv import tvm_adapter

if TYPE_CHECKING:
    from tvm import IRModule
    from tvm.target import Target

STORE_FEATURES = 164
"""Features of one store: TVM's src/s_tir/meta_schedule/feature_extractor/per_store_feature.cc."""


def per_store_features(
    mod: IRModule, target: Target, schedules: Sequence[Any]
) -> list[npt.NDArray[np.float32]]:
    """MetaSchedule's features of schedules of one module, stock settings.

    Args:
        mod: The module that they are schedules of.
        target: What they are for.
        schedules: Schedules whose postprocessors have run.

    Returns:
        One array a schedule, shape (stores of the program, 164), already log-scaled by TVM.
    """
    meta_schedule = tvm_adapter.meta_schedule_package()
    context = meta_schedule.TuneContext(mod=mod, target=target, num_threads=1)
    arguments = meta_schedule.arg_info.ArgInfo.from_entry_func(mod, remove_preproc=True)
    candidates = [meta_schedule.MeasureCandidate(schedule, arguments) for schedule in schedules]
    extractor = meta_schedule.feature_extractor.PerStoreFeature()
    return [
        np.asarray(features.numpy(), dtype=np.float32)
        for features in extractor.extract_from(context, candidates)
    ]
