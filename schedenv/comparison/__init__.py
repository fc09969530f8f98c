"""The race: contestants on the same tasks with the same seeds and budgets, and what it says."""
