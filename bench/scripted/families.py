"""Task families of the benchmark: question, correct answer, and the script of each agent.

`truth` computes the answer from the company's data. `classic` calls tools turn by turn; calls of
one turn are concurrent, like those of a model with parallel tool calls. The other agent's programs
are text.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from scripted.company import Company

Ask = tuple[str, dict[str, Any]]  # a tool and its arguments
Classic = Generator[list[Ask], list[Any], Any]  # a failed call's result is None


@dataclass(frozen=True, slots=True)
class Family:
    """Tasks that differ in their parameters."""

    name: str
    question: str
    hard: bool
    candidates: tuple[dict[str, Any], ...]
    truth: Callable[..., Any]
    classic: Callable[..., Classic]
    searches: tuple[str, ...]
    # tools whose documentation the agent reads, because it needs their results
    manuals: tuple[str, ...]
    program: str
    slip: str = ""  # the program that the agent sends first and corrects after its error


def listed(tool: str, **wanted: Any) -> Generator[list[Ask], list[Any], list[Any]]:
    """Return every item of a list: the first page, then the others at once."""
    (first,) = yield [(tool, {"filter": wanted, "page_size": 25})]
    pages = range(2, (first["total"] - 1) // 25 + 2)
    rest = (
        (yield [(tool, {"filter": wanted, "page_size": 25, "page": page}) for page in pages])
        if pages
        else []
    )
    return [*first["items"], *(item for page in rest for item in page["items"])]


def fetched(tool: str, ids: list[str]) -> Generator[list[Ask], list[Any], dict[str, Any]]:
    """Call a tool once per id, concurrently; failed calls are None."""
    found = (yield [(tool, {"id": one}) for one in ids]) if ids else []
    return dict(zip(ids, found, strict=True))


def distinct(records: list[Any], field: str) -> list[str]:
    """Return the distinct values of a field, in order."""
    return sorted({record[field] for record in records})


def month(number: int) -> dict[str, str]:
    """Return the first and the last day of a month."""
    return {"least": f"2026-{number:02}-01", "most": f"2026-{number:02}-28"}


def known(company: Company, path: str, identity: str) -> Any:
    """Return a record that must exist."""
    found = company.get(path, identity)
    if found is None:
        raise KeyError(identity)
    return found
