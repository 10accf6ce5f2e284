"""Validation of guards: names of guards in attachments, names of rules, and limits."""

from collections.abc import Collection, Iterator
from difflib import get_close_matches
from typing import Any

from toolbus_common.config.guards.guard import BUILT_IN_KINDS
from toolbus_common.config_store.loading.document import ConfigPath, ConfigProblem, Document
from toolbus_common.guards.detectors import known_rules_of, limits_problems

# The sections whose entries have a field `guards`. The only other one is `anonymous`.
_ATTACHED = ("customers", "teams", "users", "keys", "groups", "access", "servers", "providers")


def problems(document: Document) -> Iterator[ConfigProblem]:
    """Yield a problem for each unknown name of a guard, its server or rule, and wrong limits."""
    data = document.data
    guards = _object(data.get("guards"))
    for path, name in _attachments(data):
        if isinstance(name, str) and name not in guards:
            yield document.problem(path, _unknown("guard", name, guards, "add it under guards"))
    servers = _object(data.get("servers"))
    for name, guard in guards.items():
        server = _object(guard).get("server")
        if isinstance(server, str) and server not in servers:
            message = _unknown("server", server, servers, "add it under servers")
            yield document.problem(("guards", name, "server"), message)
        yield from _unknown_rules(document, name, _object(guard))
        yield from _wrong_limits(document, name, _object(guard))


def _attachments(data: dict[str, Any]) -> Iterator[tuple[ConfigPath, Any]]:
    """Yield the location and the text of each name of a guard."""
    entries: list[tuple[ConfigPath, Any]] = [(("anonymous",), data.get("anonymous"))]
    for section in _ATTACHED:
        entries += [((section, name), entry) for name, entry in _object(data.get(section)).items()]
    for name, server in _object(data.get("servers")).items():
        tools = _object(_object(server).get("tools"))
        entries += [(("servers", name, "tools", tool), view) for tool, view in tools.items()]
    for path, entry in entries:
        for at, guard in enumerate(_list(_object(entry).get("guards"))):
            yield (*path, "guards", at), guard
    for pattern, names in _object(data.get("model_guards")).items():
        for at, guard in enumerate(_list(names)):
            yield ("model_guards", pattern, at), guard


def _unknown_rules(document: Document, name: str, guard: dict[str, Any]) -> Iterator[ConfigProblem]:
    written = {field: _list(guard.get(field)) for field in ("rules", "except_rules")}
    if not any(written.values()):
        return  # the rules are loaded only if a guard names some
    kind = guard.get("kind")
    if kind not in BUILT_IN_KINDS:
        return  # the names of a service's findings are its own
    known = known_rules_of(kind) if isinstance(kind, str) else None
    for field, rules in written.items():
        for at, rule in enumerate(rules):
            path = ("guards", name, field, at)
            if known is None:
                yield document.problem(path, f"applies only to kinds with rules, not to '{kind}'")
            elif isinstance(rule, str) and rule not in known:
                fix = "'toolbus guards list --rules' lists them"
                yield document.problem(path, _unknown("rule", rule, known, fix))


def _wrong_limits(document: Document, name: str, guard: dict[str, Any]) -> Iterator[ConfigProblem]:
    if guard.get("kind") == "limits":
        for problem in limits_problems(_object(guard.get("options"))):
            yield document.problem(("guards", name, "options"), problem)


def _unknown(noun: str, name: str, known: Collection[str], fix: str) -> str:
    close = get_close_matches(name, list(known), n=1)
    hint = f"did you mean '{close[0]}'?" if close else fix
    return f"no {noun} '{name}' is {'known' if noun == 'rule' else 'configured'}; {hint}"


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
