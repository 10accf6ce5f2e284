"""The tasks of the benchmark: what is asked, what is true, and how each agent goes about it.

`truth` works on the company itself. `classic` calls tools turn by turn; calls of one turn go out
together, as a model that calls in parallel would have it. The other agent's programs are text.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from scripted.company import Company

Ask = tuple[str, dict[str, Any]]  # a tool, and its arguments
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
    manuals: tuple[str, ...]  # tools whose documentation the agent reads: it needs their results
    program: str
    slip: str = ""  # what the agent sends first, and mends when it reads what is wrong


def listed(tool: str, **wanted: Any) -> Generator[list[Ask], list[Any], list[Any]]:
    """Every item of a list: the first page, then the others at once."""
    (first,) = yield [(tool, {"filter": wanted, "page_size": 25})]
    pages = range(2, (first["total"] - 1) // 25 + 2)
    rest = (
        (yield [(tool, {"filter": wanted, "page_size": 25, "page": page}) for page in pages])
        if pages
        else []
    )
    return [*first["items"], *(item for page in rest for item in page["items"])]


def fetched(tool: str, ids: list[str]) -> Generator[list[Ask], list[Any], dict[str, Any]]:
    """One call for each id, at once; those that fail are None."""
    found = (yield [(tool, {"id": one}) for one in ids]) if ids else []
    return dict(zip(ids, found, strict=True))


def distinct(records: list[Any], field: str) -> list[str]:
    """Return the values of a field, each once, in order."""
    return sorted({record[field] for record in records})


def month(number: int) -> dict[str, str]:
    """Return a month as bounds of a day."""
    return {"least": f"2026-{number:02}-01", "most": f"2026-{number:02}-28"}


def known(company: Company, path: str, identity: str) -> Any:
    """Return a record that must be there."""
    found = company.get(path, identity)
    if found is None:
        raise KeyError(identity)
    return found
