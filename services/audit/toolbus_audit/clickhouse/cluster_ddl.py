"""Migrations for a cluster: tables on every shard and replica, and one name over all of them.

The files are written for one server. On a cluster a table `events` becomes `events_local`, which
is replicated, and `events`, which is Distributed and is what everybody reads and writes. Copies of
a row share its sorting key, so that is what rows are spread by: they meet on one shard.
"""

import re
from collections.abc import Callable, Iterable, Iterator

_NAME = r"(?P<name>\w+)"
_TABLE = re.compile(rf"CREATE TABLE IF NOT EXISTS {_NAME}\b", re.IGNORECASE)
_FILLED = re.compile(
    rf"CREATE MATERIALIZED VIEW IF NOT EXISTS {_NAME}\b(?P<to>\s+TO\s+\w+)?", re.IGNORECASE
)
_VIEW = re.compile(rf"CREATE (?:OR REPLACE )?VIEW (?:IF NOT EXISTS )?{_NAME}\b", re.IGNORECASE)
_ALTER = re.compile(rf"ALTER TABLE (?:IF EXISTS )?{_NAME}\b(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_DROP = re.compile(rf"DROP (?:TABLE|VIEW) IF EXISTS {_NAME}$", re.IGNORECASE)
_WRITE = re.compile(r"INSERT INTO\b", re.IGNORECASE)
_ENGINE = re.compile(r"\bENGINE\s*=\s*(?P<kind>\w*MergeTree)\b", re.IGNORECASE)
_SORTED = re.compile(r"\bORDER BY\s+(?:(?P<one>\w+)\b|\()", re.IGNORECASE)
_COLUMNS = re.compile(r"\s*(?:ADD|DROP|MODIFY|RENAME|COMMENT)\s+COLUMN\b", re.IGNORECASE)
_WINDOW = "non_replicated_deduplication_window"


class ClusterError(Exception):
    """A statement nobody has taught us to run on a cluster."""


def tables(statements: Iterable[str]) -> frozenset[str]:
    """The names of what these statements make that holds rows."""
    found = (_TABLE.match(each) or _FILLED.match(each) for each in statements)
    return frozenset(match["name"] for match in found if match and not match.groupdict().get("to"))


def clustered(statement: str, cluster: str, known: frozenset[str]) -> list[str]:
    """What does the same on a cluster, where `known` are the tables that are there in two parts.

    Raises:
        ClusterError: it is of no kind known here.

    """
    for pattern, spelled in _KINDS.items():
        if match := pattern.match(statement):
            return list(spelled(match, cluster, known))
    raise ClusterError(f"On a cluster nobody knows how to run: {statement[:80]}")


def database(name: str, cluster: str) -> str:
    """The statement that makes a database, on one server or on a whole cluster."""
    everywhere = f" ON CLUSTER `{cluster}`" if cluster else ""
    return f"CREATE DATABASE IF NOT EXISTS `{name}`{everywhere}"


def _made(match: re.Match[str], cluster: str, _known: frozenset[str]) -> Iterator[str]:
    """The replicated part, and the name over all of them."""
    name = match["name"]
    local = _everywhere(match, cluster, f"{name}_local")
    local = _ENGINE.sub(r"ENGINE = Replicated\g<kind>", local, count=1)
    yield local.replace(_WINDOW, "replicated_deduplication_window")
    over = f"`{cluster}`, currentDatabase(), {name}_local, {_spread(match.string)}"
    yield (
        f"CREATE TABLE IF NOT EXISTS {name} ON CLUSTER `{cluster}` AS {name}_local"
        f" ENGINE = Distributed({over})"
    )


def _filled(match: re.Match[str], cluster: str, known: frozenset[str]) -> Iterator[str]:
    """A view that rows come into as they come into the table it reads, on the same server."""
    if match["to"]:
        yield _local(_everywhere(match, cluster, match["name"]), known)
        return
    for each in _made(match, cluster, known):
        yield _local(each, known - {match["name"]})


def _viewed(match: re.Match[str], cluster: str, _known: frozenset[str]) -> Iterator[str]:
    yield _everywhere(match, cluster, match["name"])


def _altered(match: re.Match[str], cluster: str, known: frozenset[str]) -> Iterator[str]:
    name = match["name"]
    if name not in known:  # a view
        yield _local(_everywhere(match, cluster, name), known)
        return
    yield _everywhere(match, cluster, f"{name}_local")
    if _COLUMNS.match(match["rest"]):  # a Distributed table has neither indexes nor a lifetime
        yield _everywhere(match, cluster, name)


def _dropped(match: re.Match[str], cluster: str, known: frozenset[str]) -> Iterator[str]:
    name = match["name"]
    yield _everywhere(match, cluster, name)
    if name in known:
        yield _everywhere(match, cluster, f"{name}_local")


def _written(match: re.Match[str], _cluster: str, _known: frozenset[str]) -> Iterator[str]:
    yield match.string  # written and read through the names that are over all shards


_KINDS: dict[re.Pattern[str], Callable[[re.Match[str], str, frozenset[str]], Iterator[str]]] = {
    _TABLE: _made,
    _FILLED: _filled,
    _VIEW: _viewed,
    _ALTER: _altered,
    _DROP: _dropped,
    _WRITE: _written,
}


def _everywhere(match: re.Match[str], cluster: str, name: str) -> str:
    start, end = match.span("name")
    return f"{match.string[:start]}{name} ON CLUSTER `{cluster}`{match.string[end:]}"


def _local(statement: str, known: frozenset[str]) -> str:
    """The same, where each part reads and fills its own: a view is filled where rows come in."""
    names = "|".join(sorted(known))
    return re.sub(
        rf"\b(FROM|JOIN|TO)(\s+)({names})\b", r"\1\2\3_local", statement, flags=re.IGNORECASE
    )


def _spread(statement: str) -> str:
    """The sorting key as a number."""
    engine = _ENGINE.search(statement)
    match = _SORTED.search(statement, engine.end()) if engine else None
    if match is None:
        raise ClusterError(f"No table of a kind that has a sorting key: {statement[:80]}")
    if match["one"]:
        return f"cityHash64({match['one']})" if match["one"].lower() != "tuple" else "rand()"
    return f"cityHash64({_enclosed(statement, match.end())})"


def _enclosed(text: str, start: int) -> str:
    """What stands between a parenthesis that opened before `start` and the one that closes it."""
    depth = 1
    for at in range(start, len(text)):
        depth += (text[at] == "(") - (text[at] == ")")
        if not depth:
            return text[start:at]
    raise ClusterError(f"A parenthesis is never closed: {text[:80]}")
