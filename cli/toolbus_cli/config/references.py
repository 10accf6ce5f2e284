"""Names that must lead somewhere: teams, customers, servers in patterns, environment variables."""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from toolbus_cli.config.document import Document, Fault, Place
from toolbus_common.grants import SEPARATOR

REFERENCE = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}")
_ALMOST = re.compile(r"\$\{[^}]*\}?")


def faults(document: Document) -> Iterator[Fault]:
    """References that lead nowhere."""
    data = document.data
    for name, key in _section(data, "keys"):
        yield from _lost(document, ("keys", name, "team"), key, "teams", "team")
    for name, team in _section(data, "teams"):
        yield from _lost(document, ("teams", name, "customer"), team, "customers", "customer")
    for place, text in _server_values(data):
        rest = REFERENCE.sub("", text)
        if _ALMOST.search(rest):
            yield document.fault(place, "holds a reference that is not of the form ${env:NAME}")


def warnings(document: Document, environ: Mapping[str, str]) -> Iterator[Fault]:
    """What is allowed but probably not meant."""
    servers = [name for name, _ in _section(document.data, "servers")]
    for place, pattern in _patterns(document.data):
        said = _about(pattern, servers)
        if said:
            yield document.fault(place, said)
    for place, text in _server_values(document.data):
        for name in REFERENCE.findall(text):
            if name not in environ:
                yield document.fault(place, f"the environment has no {name}; set it")


def _section(data: Any, name: str) -> list[tuple[str, dict[str, Any]]]:
    section = data.get(name) if isinstance(data, dict) else None
    if not isinstance(section, dict):
        return []
    return [(key, value) for key, value in section.items() if isinstance(value, dict)]


def _lost(
    document: Document, place: Place, thing: dict[str, Any], section: str, noun: str
) -> Iterator[Fault]:
    wanted = thing.get(noun)
    if not isinstance(wanted, str) or not wanted:
        return
    declared = document.data.get(section)
    known = [str(name) for name in declared] if isinstance(declared, dict) else []
    if wanted in known:
        return
    close = get_close_matches(wanted, known, n=1)
    mend = f"did you mean '{close[0]}'?" if close else f"declare it under {section}"
    yield document.fault(place, f"no {noun} '{wanted}' is declared; {mend}")


def _patterns(data: Any) -> Iterator[tuple[Place, str]]:
    for section in ("keys", "teams"):
        for name, thing in _section(data, section):
            tools = thing.get("tools")
            for at, pattern in enumerate(tools if isinstance(tools, list) else []):
                if isinstance(pattern, str):
                    yield (section, name, "tools", at), pattern
    prices = data.get("prices") if isinstance(data, dict) else None
    for pattern in prices if isinstance(prices, dict) else []:
        yield ("prices", pattern), str(pattern)


def _about(pattern: str, servers: list[str]) -> str:
    server, separator, _ = pattern.partition(SEPARATOR)
    if not separator:
        if any(sign in pattern for sign in "*?["):
            return ""
        return f"'{pattern}' covers no tool: tools are named server__tool"
    if any(fnmatchcase(name, server) for name in servers):
        return ""
    close = get_close_matches(server, servers, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    return f"'{pattern}' names the server '{server}', which is not declared{hint}"


def _server_values(data: Any) -> Iterator[tuple[Place, str]]:
    for name, server in _section(data, "servers"):
        for field in ("headers", "env"):
            values = server.get(field)
            for key, text in values.items() if isinstance(values, dict) else ():
                if isinstance(text, str):
                    yield ("servers", name, field, key), text
