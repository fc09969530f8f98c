"""TVM's own tuners, driven as they are, with a clock at their builder and runner.

Next to `schedenv.tvm_adapter`, a module that touches TVM internals that have moved before. What is
timed is upstream code: `tune_tir` and its post-optimisation. Only three things are put into it: a
clock where a candidate has been built or run, the turns that measuring processes on one machine
take, and a worker start-up that leaves out the tensor intrinsics (see
`schedenv.tvm_adapter.skip_tensor_intrinsics`), without which every build of a slow machine runs
into its deadline.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from schedenv import tvm_adapter
from schedenv.measure.placement import Placement
from schedenv.measure.turns import MachineTurns

if TYPE_CHECKING:
    from tvm import IRModule
    from tvm.target import Target

UNLIMITED_TRIALS = 1 << 20
"""What a tuner without a limit on trials is told."""

LEFT_OUT = "schedenv: the time was up before this candidate was run"
"""The error of candidates that the budget did not reach; they are no trials."""

Status = Literal["ok", "build_error", "build_timeout", "run_error", "run_timeout", "crash"]


class Tuner(msgspec.Struct, frozen=True):
    """How MetaSchedule's search is set up.

    Attributes:
        batch: Candidates that are built and run between two updates of the cost model
            (`num_trials_per_iter`; upstream's default is 64).
        warm_up: Results below which the cost model answers at random (`num_warmup_samples`; 100).
        builders: Candidates built at once, and threads of the search; None for the number of
            physical cores, as upstream has it.
        rules: The schedule rules' name, `llvm`, or None for those that upstream takes for the
            target, which on a processor with AVX-512 or VNNI include int8 ones.
        beside_pool: Whether the calling thread is kept off the cores of the kernel's other threads
            (`schedenv.measure.placement`), as in this engine.
        droplet: Share of the budget that is left for the post-optimisation, Droplet Search; 0 for
            none.
    """

    batch: int
    warm_up: int
    builders: int | None
    rules: str | None
    beside_pool: bool
    droplet: float = 0.0


@dataclass(frozen=True)
class Listener:
    """Who is told what happens, and when to stop.

    Attributes:
        started: The tuner's processes run; its clock starts.
        building: A number of candidates are about to be built.
        running: So many of them were built and are about to be run one after the other.
        tried: One candidate has ended so, with these times in seconds a call.
        committed: The database holds the candidates that were run.
        expired: Whether a share of the seconds, from 0 to 1, has passed.
    """

    started: Callable[[], None]
    building: Callable[[int], None]
    running: Callable[[int], None]
    tried: Callable[[Status, tuple[float, ...]], None]
    committed: Callable[[], None]
    expired: Callable[[float], bool]


class _EndOfBudgetError(Exception):
    """Ends upstream's search from within its measure callback."""


def tune(
    mod: IRModule,
    target: Target,
    tuner: Tuner,
    directory: str,
    trials: int | None,
    seed: int,
    listener: Listener,
) -> None:
    """Run MetaSchedule on a module until the trials or the listener end it.

    Args:
        mod: The module, with one function, `main`.
        target: What to tune for.
        tuner: How.
        directory: Where its database and its logs go.
        trials: Candidates, failures included; None for no limit.
        seed: Of its search.
        listener: Who is told.
    """
    polish = 0
    if tuner.droplet:
        polish = min(100, round(tuner.droplet * trials)) if trials is not None else 100
    searched = UNLIMITED_TRIALS if trials is None else trials - polish
    clocked = _Clocked(tvm_adapter.meta_schedule_package(), tuner, listener)

    def search(builders: int, settings: dict[str, Any]) -> None:
        clocked.meta_schedule.tir_integration.tune_tir(
            mod, target, directory, searched, num_tuning_cores=builders, seed=seed, **settings
        )

    clocked.search(search)
    if polish:
        _polish(clocked, target, directory, polish, seed)


def tune_graph(
    graph: IRModule, target: Target, tuner: Tuner, directory: str, seed: int, listener: Listener
) -> None:
    """Run MetaSchedule's `tune_relax` on a whole network until the listener ends it.

    Upstream commits the first round of a task when it comes back to it, after all the others'. So
    the search is not left when the time is up: its strategies have no more candidates, it ends by
    itself, and whatever was timed is committed.

    Args:
        graph: A Relax module whose operators are kernels already; weights are constants.
        target: What to tune for.
        tuner: How; `droplet` is not used.
        directory: Where its database and its logs go.
        seed: Of its search.
        listener: Who is told.
    """
    clocked = _Clocked(tvm_adapter.meta_schedule_package(), tuner, listener, leaves=False)
    strategy = _until_expired(clocked.meta_schedule, clocked)

    def search(_: int, settings: dict[str, Any]) -> None:
        clocked.meta_schedule.relax_integration.tune_relax(
            graph, {}, target, directory, UNLIMITED_TRIALS, strategy=strategy, seed=seed, **settings
        )

    clocked.search(search)


def measure(
    mod: IRModule, scheduled: Sequence[IRModule], target: Target, builders: int
) -> list[float]:
    """Build and time scheduled modules with MetaSchedule's LocalBuilder and LocalRunner.

    Stock settings, but for what would be unfair: its processes are spared the tensor intrinsics,
    which on a slow machine take longer than its whole build timeout.

    Args:
        mod: The module that they are schedules of.
        scheduled: The candidates.
        target: What they are for.
        builders: How many are built at once.

    Returns:
        The mean seconds of each; infinity for one that failed.
    """
    meta_schedule = tvm_adapter.meta_schedule_package()
    builder = meta_schedule.builder.LocalBuilder(
        max_workers=builders, initializer=tvm_adapter.skip_tensor_intrinsics
    )
    runner = meta_schedule.runner.LocalRunner(initializer=tvm_adapter.skip_tensor_intrinsics)
    arguments = meta_schedule.arg_info.ArgInfo.from_entry_func(mod, remove_preproc=True)
    builds = builder.build(
        [meta_schedule.builder.BuilderInput(candidate, target) for candidate in scheduled]
    )
    seconds = [math.inf] * len(builds)
    inputs = [
        (index, meta_schedule.runner.RunnerInput(build.artifact_path, "cpu", arguments))
        for index, build in enumerate(builds)
        if build.error_msg is None
    ]
    futures = runner.run([given for _, given in inputs])
    for (index, given), future in zip(inputs, futures, strict=True):
        result = future.result()
        if result.error_msg is None:
            times = [float(time_s) for time_s in result.run_secs]
            seconds[index] = sum(times) / len(times)
        shutil.rmtree(Path(given.artifact_path).parent, ignore_errors=True)
    return seconds


def _polish(clocked: _Clocked, target: Target, directory: str, trials: int, seed: int) -> None:
    """Droplet Search from the best record, as `tune_tir(..., post_optimization=True)` runs it.

    It makes its builder and its runner itself, from these two names.
    """
    import random

    meta_schedule = clocked.meta_schedule
    clocked.begin_polishing()
    # Upstream draws from the global generator, unseeded.
    random.seed(seed)
    meta_schedule.builder.LocalBuilder = clocked.builder
    meta_schedule.runner.LocalRunner = clocked.runner
    optimisation = meta_schedule.post_optimization.PostOpt(directory, target, trials)
    try:
        optimisation.run()
    except Exception:
        if not clocked.ended:
            raise


def prepare_worker() -> None:
    """What a process of TVM's pools does first."""
    tvm_adapter.skip_tensor_intrinsics()


def run_beside_pool(library: Any, device: Any, config: Any, repeated: Sequence[Any]) -> list[float]:
    """Upstream's evaluator, after the calling thread has left the cores of TVM's thread pool."""
    from tvm.s_tir.meta_schedule.runner.utils import run_evaluator_common

    # The first kernel on all cores makes TVM start its pool.
    library[library.entry_name](*repeated[0])
    Placement().beside_pool()
    costs: list[float] = run_evaluator_common(library, device, config, repeated)
    return costs


class _Clocked:
    """Makes builders, runners and callbacks that report to a listener.

    Args:
        meta_schedule: The package.
        tuner: Settings.
        listener: Who is told.
        leaves: Whether upstream's search is left when the time is up.
    """

    def __init__(
        self, meta_schedule: Any, tuner: Tuner, listener: Listener, *, leaves: bool = True
    ) -> None:
        self.meta_schedule = meta_schedule
        self._local_builder = meta_schedule.builder.LocalBuilder
        self._local_runner = meta_schedule.runner.LocalRunner
        self._tuner, self._listener = tuner, listener
        self._turns = MachineTurns()
        self._leaves, self._polishing = leaves, False
        self.ended = False

    def search(self, run: Callable[[int, dict[str, Any]], None]) -> None:
        """Start upstream's search and wait for its end, by itself or with the budget.

        Args:
            run: Calls it with the number of builders and what all of its entry points take.
        """
        measure_callback = self.meta_schedule.measure_callback.MeasureCallback
        builders = self._tuner.builders or self.meta_schedule.utils.cpu_count(logical=False)
        builder, runner = self.builder(max_workers=builders), self.runner()
        callbacks = list(measure_callback.create("default"))
        # Right behind the one that writes to the database, before the model learns.
        callbacks.insert(1, self.committed_callback())
        settings = {
            "num_trials_per_iter": self._tuner.batch,
            "builder": builder,
            "runner": runner,
            "cost_model": self.meta_schedule.cost_model.XGBModel(
                num_warmup_samples=self._tuner.warm_up,
                num_tuning_cores=builders,
                tree_method="auto",
            ),
            "measure_callbacks": callbacks,
            "space": self._tuner.rules or "post-order-apply",
        }
        self._listener.started()
        try:
            run(builders, settings)
        except Exception:
            # It has come through C++, so its class may be another one by now.
            if not self.ended:
                raise

    def begin_polishing(self) -> None:
        """The search is over; the rest of the budget is the post-optimisation's."""
        self._polishing, self.ended = True, False

    def expired(self) -> bool:
        """Whether nothing more may be run in this phase."""
        return self._listener.expired(1.0 if self._polishing else 1.0 - self._tuner.droplet)

    def builder(self, **settings: Any) -> Any:
        """A LocalBuilder whose builds are reported; the arguments are upstream's."""
        inner = self._local_builder(**{"initializer": prepare_worker, **settings})
        return _report_builds(self.meta_schedule, inner, self)

    def runner(self, **settings: Any) -> Any:
        """A LocalRunner whose runs are reported; the arguments are upstream's."""
        if self._tuner.beside_pool:
            settings = {"f_run_evaluator": run_beside_pool, **settings}
        inner = self._local_runner(**{"initializer": prepare_worker, **settings})
        return _report_runs(self.meta_schedule, inner, self)

    def committed_callback(self) -> Any:
        """A measure callback that reports commits and ends the search when the time is up."""
        return _report_commits(self.meta_schedule, self)

    def build(self, inner: Any, inputs: Sequence[Any]) -> list[Any]:
        """Build candidates; tell the listener of those that failed."""
        if self.expired():
            if self._leaves:
                self.end()
            result = self.meta_schedule.builder.BuilderResult
            return [result(None, LEFT_OUT) for _ in inputs]
        self._listener.building(len(inputs))
        with self._turns.building():
            results = list(inner.build(inputs))
        for result in results:
            if result.error_msg is not None:
                late = "Timeout, killed" in str(result.error_msg)
                self._listener.tried("build_timeout" if late else "build_error", ())
        if not self._polishing:
            # Droplet writes every result down at once; it has nothing to commit.
            self._listener.running(sum(result.error_msg is None for result in results))
        return results

    def run(self, inner: Any, inputs: Sequence[Any]) -> list[Any]:
        """Run candidates one after the other; tell the listener of each."""
        futures: list[Any] = []
        for given in inputs:
            if self.expired():
                futures.append(_left_out(self.meta_schedule))
                continue
            with self._turns.timing():
                (future,) = inner.run([given])
            futures.append(future)
            result = future.result()
            times = () if result.error_msg is not None else _seconds(result.run_secs)
            self._listener.tried(_run_status(result.error_msg), times)
        return futures

    def commit(self) -> None:
        """The database has the results of a batch."""
        self._listener.committed()
        if self._leaves and self.expired():
            self.end()

    def end(self) -> None:
        """Leave upstream's search.

        Raises:
            _EndOfBudgetError: Always.
        """
        self.ended = True
        raise _EndOfBudgetError


def _run_status(message: object) -> Status:
    if message is None:
        return "ok"
    text = str(message)
    if "Timeout, killed" in text:
        return "run_timeout"
    return "crash" if "Subprocess terminated" in text else "run_error"


def _seconds(run_secs: Sequence[Any]) -> tuple[float, ...]:
    return tuple(float(getattr(second, "value", second)) for second in run_secs)


def _left_out(meta_schedule: Any) -> Any:
    return meta_schedule.runner.local_runner.LocalRunnerFuture(error_message=LEFT_OUT)


def _report_builds(meta_schedule: Any, inner: Any, clocked: _Clocked) -> Any:
    from tvm.ir.utils import derived_object

    @derived_object
    class ClockedBuilder(meta_schedule.builder.PyBuilder):  # type: ignore[misc]
        def build(self, build_inputs: Sequence[Any]) -> list[Any]:
            return clocked.build(inner, build_inputs)

    return ClockedBuilder()


def _report_runs(meta_schedule: Any, inner: Any, clocked: _Clocked) -> Any:
    from tvm.ir.utils import derived_object

    @derived_object
    class ClockedRunner(meta_schedule.runner.PyRunner):  # type: ignore[misc]
        def run(self, runner_inputs: Sequence[Any]) -> list[Any]:
            return clocked.run(inner, runner_inputs)

    return ClockedRunner()


def _report_commits(meta_schedule: Any, clocked: _Clocked) -> Any:
    from tvm.ir.utils import derived_object

    @derived_object
    class Commits(meta_schedule.measure_callback.PyMeasureCallback):  # type: ignore[misc]
        def apply(self, *_: Any) -> None:
            clocked.commit()

    return Commits()


def _until_expired(meta_schedule: Any, clocked: _Clocked) -> Any:
    """Upstream's evolutionary search, which has no more candidates when the time is up."""
    from tvm.ir.utils import derived_object

    @derived_object
    class UntilExpired(meta_schedule.search_strategy.PySearchStrategy):  # type: ignore[misc]
        def __init__(self) -> None:
            self.inner = meta_schedule.search_strategy.EvolutionarySearch()

        def _initialize_with_tune_context(self, context: Any) -> None:
            self.inner._initialize_with_tune_context(context)

        def pre_tuning(self, *settings: Any) -> None:
            self.inner.pre_tuning(*settings)

        def post_tuning(self) -> None:
            self.inner.post_tuning()

        def generate_measure_candidates(self) -> Any:
            return None if clocked.expired() else self.inner.generate_measure_candidates()

        def notify_runner_results(self, candidates: Any, results: Any) -> None:
            self.inner.notify_runner_results(candidates, results)

        def clone(self) -> Any:
            return UntilExpired()

    return UntilExpired()
