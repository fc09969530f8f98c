"""Agents that misbehave, and attempts that are made up."""

from pathlib import Path

from schedenv.comparison.attempts import Attempt

BAD_AGENTS = """
from schedenv.space import Point

class Base:
    def __init__(self, space, seed):
        self.space, self.asked = space, 0
    def ask(self, count):
        return []
    def tell(self, results):
        pass
    def state_dict(self):
        return {}

class Silent(Base):
    pass

class Raising(Base):
    def ask(self, count):
        raise ZeroDivisionError("as scripted")

class Unborn(Base):
    def __init__(self, space, seed):
        raise KeyError("as scripted")

class Illegal(Base):
    def ask(self, count):
        return [Point(99, (1, 2))]

class Repeating(Base):
    def ask(self, count):
        return [self.space.default()] * count

class Deaf(Base):
    def ask(self, count):
        return [self.space.default()]
    def tell(self, results):
        raise ValueError("as scripted")
"""


def bad_agents(folder: Path) -> dict[str, str]:
    """The names under which agents of `BAD_AGENTS` can be found, by class."""
    path = folder / "bad.py"
    path.write_text(BAD_AGENTS)
    names = ("Silent", "Raising", "Unborn", "Illegal", "Repeating", "Deaf")
    return {name: f"{path}:{name}" for name in names}


def attempt(
    agent: str, *curve: tuple[float, int, float], task: str = "t", seed: int = 0, **more: object
) -> Attempt:
    """An attempt with a curve, that took ten seconds and twenty trials unless told otherwise."""
    return Attempt(
        task=task, agent=agent, seed=seed, curve=curve, **{"trials": 20, "elapsed_s": 10.0, **more}
    )
