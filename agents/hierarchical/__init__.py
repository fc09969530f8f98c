"""The hierarchical agent: a bandit over sketches, a policy over knob edits, an on-line model."""

from schedenv_agents.hierarchical.agent import HierarchicalAgent, PaperAgent
from schedenv_agents.hierarchical.config import PAPER, HierarchicalConfig

__all__ = ["PAPER", "HierarchicalAgent", "HierarchicalConfig", "PaperAgent"]
