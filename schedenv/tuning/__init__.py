"""Tuning: the budget, the ask/tell loop, and the verdict at the end."""

from schedenv.tuning.agent import Agent, agent_names, make_agent
from schedenv.tuning.budget import Budget
from schedenv.tuning.loop import Loop, Progress

__all__ = ["Agent", "Budget", "Loop", "Progress", "agent_names", "make_agent"]
