"""The hierarchical agent: a bandit over sketches, a policy over knob edits, an on-line model."""

from .agent import HierarchicalAgent, PaperAgent, PriorAgent
from .config import PAPER, HierarchicalConfig

__all__ = ["PAPER", "HierarchicalAgent", "HierarchicalConfig", "PaperAgent", "PriorAgent"]
