"""The journal: what a program's calls came to, so that it can be run again to the same point.

Starlark has no threads and catches nothing, yet `parallel` takes functions whose calls must be
under way together. A program is deterministic but for its calls, so a branch that reaches a call
without an outcome notes it and stops the whole run; the run starts over, answered from the
journal, passes that branch by, and goes on with the next. Once every branch has either ended or
waits for a call, all the waiting calls are made at once, and the run starts over again.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from toolbus_codemode.sandbox.protocol import Call, Outcome

Place = tuple[int, ...]
Ask = Callable[[tuple[Call, ...]], tuple[Outcome, ...]]


class Again(Exception):  # noqa: N818 - not an error: the run is to start over
    """The run has to start over, answered from the journal."""


@dataclass(slots=True)
class Branch:
    """Where a run is: a place in the tree of parallel branches, and what it counted there."""

    place: Place
    calls: int = 0
    forks: int = 0


@dataclass(slots=True)
class Journal:
    """Outcomes by the place of their call; calls that wait; how far this pass has come."""

    ask: Ask
    kept: bool
    outcomes: dict[Place, Outcome] = field(default_factory=dict)
    waiting: dict[Place, Call] = field(default_factory=dict)
    branches: list[Branch] = field(default_factory=lambda: [Branch(())])
    again: bool = False

    def start_over(self) -> None:
        """A new pass over the same program."""
        self.branches = [Branch(())]
        self.again = False

    def stop(self) -> None:
        """End this pass: the engine can only be left by an error."""
        self.again = True
        raise Again

    def outcome(self, call: Call) -> Outcome:
        """What one call came to."""
        (outcome,) = self.together((call,))
        return outcome

    def together(self, calls: tuple[Call, ...]) -> tuple[Outcome, ...]:
        """What calls came to: known, or asked now, or noted for when its branches wait."""
        here = self.branches[-1]
        placed = {(*here.place, here.calls + at): call for at, call in enumerate(calls)}
        here.calls += len(calls)
        missing = {place: call for place, call in placed.items() if place not in self.outcomes}
        if missing and len(self.branches) > 1:
            self.waiting |= missing
            self.stop()
        self.make(missing)
        take = self.outcomes.__getitem__ if self.kept else self.outcomes.pop
        return tuple(take(place) for place in placed)

    def make(self, calls: dict[Place, Call]) -> None:
        """Have calls made at once, and keep their outcomes by their places."""
        if calls:
            places = {call.id: place for place, call in calls.items()}
            for outcome in self.ask(tuple(calls.values())):
                self.outcomes[places[outcome.id]] = outcome

    def fork(self) -> int:
        """A `parallel` begins: its number where it stands."""
        here = self.branches[-1]
        here.forks += 1
        return here.forks

    def enter(self, fork: int, index: int) -> bool:
        """Go into one of its branches, unless that branch waits for a call."""
        place = (*self.branches[-1].place, -fork, index)
        if any(waits[: len(place)] == place for waits in self.waiting):
            return False
        self.branches.append(Branch(place))
        return True

    def leave(self) -> None:
        """Come back from a branch."""
        self.branches.pop()

    def join(self) -> None:
        """All branches have ended or wait. At the outermost, make the calls that wait."""
        here = self.branches[-1].place
        if not any(waits[: len(here)] == here for waits in self.waiting):
            return
        if len(self.branches) == 1:
            self.make(self.waiting)
            self.waiting.clear()
        self.stop()
