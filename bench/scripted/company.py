"""Company in memory: the same data in every run, with tools that read and change it."""

import pickle
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

from scripted.nouns import NOUNS, Noun

MAX_PER_PAGE, USUAL_PAGE = 25, 20
_WORDS = [
    "amber", "birch", "cobalt", "delta", "ember", "fjord", "garnet", "harbour", "iris",
    "juniper", "kestrel", "linden", "maple", "nova", "onyx", "pine", "quartz", "river",
    "slate", "tundra", "umber", "violet", "willow", "yarrow", "zenith",
]  # fmt: skip
Record = dict[str, Any]
Tables = dict[str, dict[str, Record]]


class ToolError(Exception):
    """An error that a tool reports instead of a result."""


class Company:
    """All records, and the changes since the start."""

    def __init__(self) -> None:
        self.tables: Tables = pickle.loads(_initial())
        self.effects: list[list[Any]] = []

    def call(self, server: str, tool: str, arguments: Record) -> Record:
        """Execute one call of a tool. Raises `ToolError`."""
        verb, _, named = tool.partition("_")
        for noun in NOUNS.values():
            if noun.server == server and named in (noun.one, noun.plural) and verb in VERBS:
                return VERBS[verb](self, noun, arguments)
        raise ToolError(f"There is no tool {tool}.")

    def all(self, path: str, **wanted: Any) -> list[Record]:
        """Return every record with these fields."""
        return [each for each in self.tables[path].values() if _fits(each, wanted)]

    def get(self, path: str, identity: str) -> Record | None:
        """Return one record."""
        return self.tables[path].get(identity)

    def did(self, path: str, verb: str, what: Record) -> None:
        """Record an effect for the check of the task."""
        self.effects.append([path, verb, what])


def _list(company: Company, noun: Noun, arguments: Record) -> Record:
    size = min(MAX_PER_PAGE, max(1, arguments.get("page_size") or USUAL_PAGE))
    page = max(1, arguments.get("page") or 1)
    found = company.all(noun.path, **(arguments.get("filter") or {}))
    more = page * size < len(found)
    items = found[(page - 1) * size : page * size]
    return {"items": items, "total": len(found), "next_page": page + 1 if more else None}


def _get(company: Company, noun: Noun, arguments: Record) -> Record:
    found = company.get(noun.path, str(arguments.get("id")))
    if found is None:
        raise ToolError(f"No {noun.one} has the id {arguments.get('id')}.")
    return found


def _search(company: Company, noun: Noun, arguments: Record) -> Record:
    word = str(arguments.get("query", "")).lower()
    found = [r for r in company.all(noun.path) if any(word in str(v).lower() for v in r.values())]
    return {"items": found[: min(MAX_PER_PAGE, arguments.get("limit") or 10)]}


def _count(company: Company, noun: Noun, arguments: Record) -> Record:
    return {"count": len(company.all(noun.path, **(arguments.get("filter") or {})))}


def _create(company: Company, noun: Noun, arguments: Record) -> Record:
    table = company.tables[noun.path]
    fields = {name: arguments[name] for name in noun.fields if name in arguments}
    made = {"id": noun.id_of(len(table) + 1), **fields}
    table[made["id"]] = made
    company.did(noun.path, "create", fields)
    return made


def _update(company: Company, noun: Noun, arguments: Record) -> Record:
    found = _get(company, noun, arguments)
    unknown = set(arguments.get("changes") or {}) - set(noun.fields)
    if unknown:
        raise ToolError(f"A {noun.one} has no field {min(unknown)}.")
    found |= arguments.get("changes") or {}
    company.did(noun.path, "update", {"id": found["id"], **(arguments.get("changes") or {})})
    return found


def _delete(company: Company, noun: Noun, arguments: Record) -> Record:
    found = _get(company, noun, arguments)
    del company.tables[noun.path][found["id"]]
    company.did(noun.path, "delete", {"id": found["id"]})
    return {"deleted": True}


def _archive(company: Company, noun: Noun, arguments: Record) -> Record:
    found = _get(company, noun, arguments)
    company.did(noun.path, "archive", {"id": found["id"]})
    return {"archived": True}


VERBS: dict[str, Callable[[Company, Noun, Record], Record]] = {
    "list": _list,
    "get": _get,
    "create": _create,
    "update": _update,
    "count": _count,
    "search": _search,
    "delete": _delete,
    "archive": _archive,
}


def _fits(record: Record, wanted: Record) -> bool:
    return all(_within(record.get(name), each) for name, each in wanted.items())


def _within(value: Any, wanted: Any) -> bool:
    if not isinstance(wanted, dict):
        return bool(value == wanted)
    least, most = wanted.get("least"), wanted.get("most")
    return (least is None or value >= least) and (most is None or value <= most)


@cache
def _initial() -> bytes:
    tables: Tables = {
        path: {noun.id_of(n): _made(noun, n) for n in range(1, noun.count + 1)}
        for path, noun in NOUNS.items()
    }
    return pickle.dumps(tables)


def _made(noun: Noun, number: int) -> Record:
    chance = Random(f"{noun.path} {number}")
    values = {name: _value(chance, kind, number) for name, kind in noun.fields.items()}
    return {"id": noun.id_of(number), **values}


def _value(chance: Random, kind: str, number: int) -> Any:
    name, *rest = kind.split()
    if name == "int":
        return chance.randint(int(rest[0]), int(rest[1]))
    if name == "day":
        return f"2026-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}"
    if name == "ref":
        return NOUNS[rest[0]].id_of(chance.randint(1, int(rest[1])))
    if name == "choice":
        return chance.choice(rest)
    return f"{chance.choice(_WORDS)}-{chance.choice(_WORDS)}-{number}"
