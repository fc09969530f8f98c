"""schedenv: a reinforcement-learning auto-scheduler for tensor programs, on Gymnasium and TVM."""

__version__ = "0.1.0"
