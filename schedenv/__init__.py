"""schedenv: a reinforcement-learning auto-scheduler for tensor programs, on Gymnasium and TVM.

Importing it registers the environments `schedenv/...` with Gymnasium; TVM itself is imported only
when a task is built.
"""

from schedenv import envs

__version__ = "0.1.0"

envs.register()
