"""Points of `Edit-v0` as graphs, for geometric models: a wrapper, and the function behind it."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from schedenv.envs.edit import EditEnv
from schedenv.envs.layout import ROLES
from schedenv.errors import InputError
from schedenv.space import ChoiceKnob, Point, SearchSpace, TileKnob
from schedenv.space.knobs import INLINE

NODE_KINDS = ("axis", "level", "annotation", "location")
EDGE_KINDS = ("belongs to", "is outside of", "bears on")
NODE_SIZE = len(NODE_KINDS) + 4 + len(ROLES)

_LOG_SCALE = 1.0 / 20.0
_LOCATION_SCALE = 1.0 / 40.0

GRAPH_SPACE = spaces.Graph(
    node_space=spaces.Box(0.0, 1.0, (NODE_SIZE,), np.float32),
    edge_space=spaces.Discrete(len(EDGE_KINDS)),
)


def point_graph(space: SearchSpace, point: Point) -> spaces.GraphInstance:
    """The knobs of a point and the loops that they make, as a graph.

    Nodes, in the order of the point's knobs: for a tile its axis and then each of its levels,
    outermost first; for an annotation or a compute location itself. A node's features, float32
    within [0, 1]:

    | entries | meaning |
    |---|---|
    | 0 to 3 | kind, one-hot: axis, level, annotation, location |
    | 4 | value: log2 of an axis' extent or a level's factor, / 20; position of an annotation in its list, 0 to 1; location + 2, / 40 |
    | 5 | whether the loop is a reduction |
    | 6 | position of a level in its tile, 0 outermost, 1 innermost |
    | 7 | for a level, whether it is a unit loop |
    | 8 to 10 | role of an annotation, one-hot: unroll, parallel, vectorize |

    Edges (source, destination) have a kind each: 0, a level belongs to its axis; 1, a level is
    outside of the next one of its tile; 2, an annotation or a location bears on an axis (each of
    them on all axes: which loops it reaches is decided by TVM).

    Args:
        space: The space.
        point: One of its points.

    Returns:
        `nodes` (n, 11) float32, `edges` (e,) int64, `edge_links` (e, 2) int64, the same for the
        same point always.
    """  # noqa: E501 - a table's rows are lines
    nodes: list[list[float]] = []
    links: list[tuple[int, int, int]] = []
    axes: list[int] = []
    others: list[int] = []

    def add(kind: str, value: float, *rest: float) -> int:
        one_hot = [float(kind == known) for known in NODE_KINDS]
        nodes.append([*one_hot, min(1.0, value), *rest, *[0.0] * (NODE_SIZE - 5 - len(rest))])
        return len(nodes) - 1

    for knob in space.sketches[point.sketch].knobs:
        values = point.values[knob.start : knob.start + knob.width]
        if isinstance(knob, TileKnob):
            reduction = float(knob.is_reduction)
            axis = add("axis", math.log2(knob.extent) * _LOG_SCALE, reduction)
            axes.append(axis)
            for level, factor in enumerate(values):
                place = level / max(1, knob.width - 1)
                value = math.log2(factor) * _LOG_SCALE
                node = add("level", value, reduction, place, float(factor == 1))
                links.append((node, axis, 0))
                if level:
                    links.append((node - 1, node, 1))
        elif isinstance(knob, ChoiceKnob):
            roles = [float(knob.role == role) for role in ROLES]
            value = values[0] / max(1, len(knob.choices) - 1)
            others.append(add("annotation", value, 0.0, 0.0, 0.0, *roles))
        else:
            others.append(add("location", (values[0] - INLINE) * _LOCATION_SCALE))
    links += [(other, axis, 2) for other in others for axis in axes]
    table = np.array(links, np.int64).reshape(-1, 3)
    return spaces.GraphInstance(
        nodes=np.array(nodes, np.float32).reshape(-1, NODE_SIZE),
        edges=table[:, 2].copy(),
        edge_links=table[:, :2].copy(),
    )


class GraphView(gym.ObservationWrapper[dict[str, Any], Any, Any], gym.utils.RecordConstructorArgs):
    """Shows `Edit-v0` as a graph: the key `graph` takes the place of the piece `knobs`.

    The other keys stay as they are. `graph` is a `gymnasium.spaces.GraphInstance` of arrays, see
    `point_graph`; libraries for graphs take `nodes`, `edge_links.T` and `edges` as they are.

    Args:
        env: An environment `schedenv/Edit-v0`, wrapped or not.

    Raises:
        InputError: It is another environment.

    Example:
        >>> import gymnasium, schedenv
        >>> env = GraphView(gymnasium.make("schedenv/Edit-v0", reward="recorded", table="gmm"))
        >>> observation, info = env.reset(seed=0)
        >>> sorted(observation)
        ['graph', 'hardware', 'progress', 'task']
        >>> graph = observation["graph"]
        >>> graph.nodes.shape, graph.edge_links.shape, graph.edges.shape
        ((21, 11), (36, 2), (36,))
        >>> env.observation_space.contains(observation)
        True
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        gym.ObservationWrapper.__init__(self, env)
        if not isinstance(env.unwrapped, EditEnv):
            raise InputError(
                "GraphView shows complete schedules, which schedenv/Edit-v0 has; got "
                f"{type(env.unwrapped).__name__}"
            )
        self._edit = env.unwrapped
        shown = dict(env.observation_space.items())  # type: ignore[attr-defined]
        kept = {key: box for key, box in shown.items() if key not in _REPLACED}
        self.observation_space = spaces.Dict({**kept, "graph": GRAPH_SPACE})

    def observation(self, observation: Any) -> dict[str, Any]:
        """The observation with the graph of the point that the agent stands on."""
        kept = {key: value for key, value in observation.items() if key not in _REPLACED}
        return {**kept, "graph": point_graph(self._edit.search_space, self._edit.point)}


_REPLACED = ("knobs", "knob_mask", "sketch")
