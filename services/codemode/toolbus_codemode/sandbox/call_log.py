"""Log of the outcomes of a program's calls, with which the program is replayed.

Starlark has no threads and no exceptions to catch, yet the calls in the functions of `parallel`
must run concurrently. A program is deterministic except for its calls. Therefore a branch that
reaches a call without an outcome records the call and stops the run. The run restarts, replays
outcomes from the log, skips that branch, and continues with the next one. When every branch has
ended or waits for a call, all waiting calls are made concurrently, and the run restarts again.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from toolbus_codemode.sandbox.protocol import Call, Outcome

Position = tuple[int, ...]
RunCalls = Callable[[tuple[Call, ...]], tuple[Outcome, ...]]


class Again(Exception):  # noqa: N818 - control flow, not an error
    """The run must restart and replay the log."""


@dataclass(slots=True)
class Branch:
    """Position of a run in the tree of parallel branches, with the counters at this position."""

    position: Position
    calls: int = 0
    forks: int = 0


@dataclass(slots=True)
class CallLog:
    """Log of one run: outcomes by call position, waiting calls, and the state of this pass."""

    run_calls: RunCalls
    kept: bool
    outcomes: dict[Position, Outcome] = field(default_factory=dict)
    waiting: dict[Position, Call] = field(default_factory=dict)
    branches: list[Branch] = field(default_factory=lambda: [Branch(())])
    again: bool = False

    def start_over(self) -> None:
        """Begin a new pass over the program."""
        self.branches = [Branch(())]
        self.again = False

    def stop(self) -> None:
        """Raise `Again`; the engine cannot stop a program in another way."""
        self.again = True
        raise Again

    def outcome(self, call: Call) -> Outcome:
        """Return the outcome of one call, from the log or from a call that is made now."""
        (outcome,) = self.together((call,))
        return outcome

    def together(self, calls: tuple[Call, ...]) -> tuple[Outcome, ...]:
        """Return the outcomes of calls, from the log or from calls that are made now.

        In a parallel branch, calls without an outcome are recorded as waiting, and the pass stops.
        """
        here = self.branches[-1]
        placed = {(*here.position, here.calls + at): call for at, call in enumerate(calls)}
        here.calls += len(calls)
        missing = {
            position: call for position, call in placed.items() if position not in self.outcomes
        }
        if missing and len(self.branches) > 1:
            self.waiting |= missing
            self.stop()
        self.make(missing)
        take = self.outcomes.__getitem__ if self.kept else self.outcomes.pop
        return tuple(take(position) for position in placed)

    def make(self, calls: dict[Position, Call]) -> None:
        """Make calls concurrently, and log their outcomes by position."""
        if calls:
            positions = {call.id: position for position, call in calls.items()}
            for outcome in self.run_calls(tuple(calls.values())):
                self.outcomes[positions[outcome.id]] = outcome

    def fork(self) -> int:
        """Begin a `parallel`; return the number of the `parallel` at this position."""
        here = self.branches[-1]
        here.forks += 1
        return here.forks

    def enter(self, fork: int, index: int) -> bool:
        """Enter a branch and return True, unless the branch waits for a call."""
        position = (*self.branches[-1].position, -fork, index)
        if any(waits[: len(position)] == position for waits in self.waiting):
            return False
        self.branches.append(Branch(position))
        return True

    def leave(self) -> None:
        """Leave the branch that was entered last."""
        self.branches.pop()

    def join(self) -> None:
        """Stop the pass if a branch waits; at the outermost level, make the waiting calls first."""
        here = self.branches[-1].position
        if not any(waits[: len(here)] == here for waits in self.waiting):
            return
        if len(self.branches) == 1:
            self.make(self.waiting)
            self.waiting.clear()
        self.stop()
