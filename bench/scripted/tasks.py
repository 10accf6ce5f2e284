"""Tasks: of each family the three with the most calls, two to ten, and the one with the fewest.

The number of calls is computed on the company itself.
"""

from dataclasses import dataclass
from functools import cache
from string import Template
from typing import Any

from scripted.changes import DEEDS
from scripted.company import Company, ToolError
from scripted.families import Classic, Family
from scripted.lookups import LOOKUPS

EACH = 4
MIN_CALLS, MAX_CALLS = 2, 10


@dataclass(frozen=True, slots=True)
class Task:
    """One question with its parameters."""

    family: Family
    number: int
    given: dict[str, Any]
    calls: int
    used: frozenset[str]  # tools the classic agent needs, `server.tool`

    @property
    def name(self) -> str:
        """The unique name."""
        return f"{self.family.name}-{self.number}"

    @property
    def question(self) -> str:
        """The person's question."""
        return self.filled(self.family.question)

    def filled(self, text: str) -> str:
        """Return a text of the family with this task's parameters; months have two digits."""
        given = {n: f"{v:02}" if isinstance(v, int) else v for n, v in self.given.items()}
        return Template(text).substitute(given).strip()

    def truth(self) -> tuple[Any, list[Any]]:
        """Return the correct answer, and the expected changes."""
        company = Company()
        return self.family.truth(company, **self.given), company.effects

    def classic(self) -> Classic:
        """Return the agent that calls tools one turn after the other."""
        return self.family.classic(**self.given)


@cache
def tasks() -> tuple[Task, ...]:
    """Return all tasks."""
    found = []
    for family in (*LOOKUPS, *DEEDS):
        tried = [_tried(family, given) for given in family.candidates]
        fitting = [
            (given, calls, used)
            for given, (calls, used) in zip(family.candidates, tried, strict=True)
            if MIN_CALLS <= calls <= MAX_CALLS
        ]
        fitting.sort(key=lambda each: -each[1])
        numbered = enumerate([*fitting[: EACH - 1], *fitting[EACH - 1 :][-1:]], 1)
        found += [Task(family, number, *each) for number, each in numbered]
    return tuple(found)


def _tried(family: Family, given: dict[str, Any]) -> tuple[int, frozenset[str]]:
    """Return how many calls the classic agent makes, and of what, from a run on the company."""
    company, agent = Company(), family.classic(**given)
    calls, results = 0, None
    used: set[str] = set()
    while True:
        try:
            request = agent.send(results)  # type: ignore[arg-type]
        except StopIteration:
            return calls, frozenset(used)
        results = [_answer(company, tool, arguments) for tool, arguments in request]
        calls += len(request)
        used.update(tool.replace("__", ".") for tool, _ in request)


def _answer(company: Company, tool: str, arguments: dict[str, Any]) -> Any:
    server, _, name = tool.partition("__")
    try:
        return company.call(server, name, arguments)
    except ToolError:
        return None
