"""The schedule space of a task: sketches, knobs, points and the moves between them."""

from schedenv.space.fitting import fit_restriction
from schedenv.space.knobs import ChoiceKnob, Knob, LocationKnob, TileKnob
from schedenv.space.moves import FactorMove, Move, SetMove, SketchMove
from schedenv.space.point import UNTUNED, Point
from schedenv.space.restriction import Restriction
from schedenv.space.search_space import SearchSpace
from schedenv.space.sketch import Sketch
from schedenv.space.space import SPACE_VERSION, Space
from schedenv.space.subspace import SubSpace

__all__ = [
    "SPACE_VERSION",
    "UNTUNED",
    "ChoiceKnob",
    "FactorMove",
    "Knob",
    "LocationKnob",
    "Move",
    "Point",
    "Restriction",
    "SearchSpace",
    "SetMove",
    "Sketch",
    "SketchMove",
    "Space",
    "SubSpace",
    "TileKnob",
    "fit_restriction",
]
