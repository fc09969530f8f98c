"""Tasks: tensor programs to schedule, with their costs and references.

`resolve` builds the task that a TASK string names: an operator (`gmm`), an operator with a shape
(`gmm:1x512x512x512`, `gmm:1x512x512x512@float64`), a member of a suite (`core/gmm-2`) or a function
in a user's Python file (`program.py:main`); `resolve_many` also takes the name of a suite.
Operators and suites are data, listed by `list_operators`, `suite_names` and `members`; only
building a task imports TVM.
"""

from schedenv.tasks.description import DescribedTask
from schedenv.tasks.families import OPERATORS, OperatorRow, list_operators
from schedenv.tasks.operators import DTYPES, Operator, Parameter
from schedenv.tasks.resolve import resolve, resolve_many
from schedenv.tasks.suites import SUITES, members, suite_names
from schedenv.tasks.task import Array, Reference, Task

__all__ = [
    "DTYPES",
    "OPERATORS",
    "SUITES",
    "Array",
    "DescribedTask",
    "Operator",
    "OperatorRow",
    "Parameter",
    "Reference",
    "Task",
    "list_operators",
    "members",
    "resolve",
    "resolve_many",
    "suite_names",
]
