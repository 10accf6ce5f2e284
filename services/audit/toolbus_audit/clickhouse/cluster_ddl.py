"""Rewrite migrations for a cluster: replicated tables on every shard, and Distributed tables.

Migration files are written for one server. On a cluster, a table `events` becomes `events_local`,
which is replicated, and `events`, which is Distributed and used by all reads and writes. Duplicates
of a row share its sorting key. Rows are sharded by this key, so all duplicates are on one shard,
which merges them.
"""

import re
from collections.abc import Callable, Iterable, Iterator

_NAME = r"(?P<name>\w+)"
_TABLE = re.compile(rf"CREATE TABLE IF NOT EXISTS {_NAME}\b", re.IGNORECASE)
_MATERIALIZED_VIEW = re.compile(
    rf"CREATE MATERIALIZED VIEW IF NOT EXISTS {_NAME}\b(?P<to>\s+TO\s+\w+)?", re.IGNORECASE
)
_VIEW = re.compile(rf"CREATE (?:OR REPLACE )?VIEW (?:IF NOT EXISTS )?{_NAME}\b", re.IGNORECASE)
_ALTER = re.compile(rf"ALTER TABLE (?:IF EXISTS )?{_NAME}\b(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_DROP = re.compile(rf"DROP (?:TABLE|VIEW) IF EXISTS {_NAME}$", re.IGNORECASE)
_WRITE = re.compile(r"INSERT INTO\b", re.IGNORECASE)
_ENGINE = re.compile(r"\bENGINE\s*=\s*(?P<kind>\w*MergeTree)\b", re.IGNORECASE)
_SORTING_KEY = re.compile(r"\bORDER BY\s+(?:(?P<one>\w+)\b|\()", re.IGNORECASE)
_COLUMNS = re.compile(r"\s*(?:ADD|DROP|MODIFY|RENAME|COMMENT)\s+COLUMN\b", re.IGNORECASE)
_WINDOW = "non_replicated_deduplication_window"


class ClusterError(Exception):
    """A statement of a kind that cannot be rewritten for a cluster."""


def tables(statements: Iterable[str]) -> frozenset[str]:
    """Return the names of the created tables, and of the created views that store rows."""
    found = (_TABLE.match(each) or _MATERIALIZED_VIEW.match(each) for each in statements)
    return frozenset(match["name"] for match in found if match and not match.groupdict().get("to"))


def clustered(statement: str, cluster: str, known: frozenset[str]) -> list[str]:
    """Return the equivalent statements for a cluster; `known` are the tables with a `_local` part.

    Raises:
        ClusterError: the kind of statement is not supported.

    """
    for pattern, rewrite in _REWRITES.items():
        if match := pattern.match(statement):
            return list(rewrite(match, cluster, known))
    raise ClusterError(
        f"A statement of this kind is not supported on a cluster: {statement[:80]}; "
        "add its rewriting to cluster_ddl.py."
    )


def database(name: str, cluster: str) -> str:
    """Return the statement that creates a database on one server or on a cluster."""
    everywhere = f" ON CLUSTER `{cluster}`" if cluster else ""
    return f"CREATE DATABASE IF NOT EXISTS `{name}`{everywhere}"


def _create_table(match: re.Match[str], cluster: str, _known: frozenset[str]) -> Iterator[str]:
    """Yield the replicated local table and the Distributed table over it."""
    name = match["name"]
    local = _on_cluster(match, cluster, f"{name}_local")
    local = _ENGINE.sub(r"ENGINE = Replicated\g<kind>", local, count=1)
    yield local.replace(_WINDOW, "replicated_deduplication_window")
    over = f"`{cluster}`, currentDatabase(), {name}_local, {_sharding_key(match.string)}"
    yield (
        f"CREATE TABLE IF NOT EXISTS {name} ON CLUSTER `{cluster}` AS {name}_local"
        f" ENGINE = Distributed({over})"
    )


def _create_materialized_view(
    match: re.Match[str], cluster: str, known: frozenset[str]
) -> Iterator[str]:
    """Yield a materialized view that reads the local part of its source on the same server."""
    if match["to"]:
        yield _to_local(_on_cluster(match, cluster, match["name"]), known)
        return
    for each in _create_table(match, cluster, known):
        yield _to_local(each, known - {match["name"]})


def _create_view(match: re.Match[str], cluster: str, _known: frozenset[str]) -> Iterator[str]:
    yield _on_cluster(match, cluster, match["name"])


def _alter(match: re.Match[str], cluster: str, known: frozenset[str]) -> Iterator[str]:
    name = match["name"]
    if name not in known:  # a view
        yield _to_local(_on_cluster(match, cluster, name), known)
        return
    yield _on_cluster(match, cluster, f"{name}_local")
    if _COLUMNS.match(match["rest"]):  # a Distributed table has neither indexes nor a TTL
        yield _on_cluster(match, cluster, name)


def _drop(match: re.Match[str], cluster: str, known: frozenset[str]) -> Iterator[str]:
    name = match["name"]
    yield _on_cluster(match, cluster, name)
    if name in known:
        yield _on_cluster(match, cluster, f"{name}_local")


def _insert(match: re.Match[str], _cluster: str, _known: frozenset[str]) -> Iterator[str]:
    yield match.string  # inserts use the Distributed tables


_REWRITES: dict[re.Pattern[str], Callable[[re.Match[str], str, frozenset[str]], Iterator[str]]] = {
    _TABLE: _create_table,
    _MATERIALIZED_VIEW: _create_materialized_view,
    _VIEW: _create_view,
    _ALTER: _alter,
    _DROP: _drop,
    _WRITE: _insert,
}


def _on_cluster(match: re.Match[str], cluster: str, name: str) -> str:
    start, end = match.span("name")
    return f"{match.string[:start]}{name} ON CLUSTER `{cluster}`{match.string[end:]}"


def _to_local(statement: str, known: frozenset[str]) -> str:
    """Return the statement with known tables replaced by their local part."""
    names = "|".join(sorted(known))
    return re.sub(
        rf"\b(FROM|JOIN|TO)(\s+)({names})\b", r"\1\2\3_local", statement, flags=re.IGNORECASE
    )


def _sharding_key(statement: str) -> str:
    """Return an expression that hashes the sorting key."""
    engine = _ENGINE.search(statement)
    match = _SORTING_KEY.search(statement, engine.end()) if engine else None
    if match is None:
        raise ClusterError(
            f"The table has no MergeTree engine with a sorting key: {statement[:80]}"
        )
    if match["one"]:
        return f"cityHash64({match['one']})" if match["one"].lower() != "tuple" else "rand()"
    return f"cityHash64({_parenthesized(statement, match.end())})"


def _parenthesized(text: str, start: int) -> str:
    """Return the text from `start` to the next unmatched closing parenthesis."""
    depth = 1
    for at in range(start, len(text)):
        depth += (text[at] == "(") - (text[at] == ")")
        if not depth:
            return text[start:at]
    raise ClusterError(f"A parenthesis is not closed: {text[:80]}")
