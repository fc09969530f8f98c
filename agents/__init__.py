"""schedenv's agents, one a file; imported as `schedenv_agents`, found by entry point.

`schedenv.tuning.make_agent("greedy", space, seed)` creates one by name.
"""
