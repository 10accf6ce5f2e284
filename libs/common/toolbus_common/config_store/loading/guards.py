"""Validation of guards: names of guards in attachments, names of rules, options, and reach."""

from collections.abc import Collection, Iterator
from difflib import get_close_matches
from typing import Any

from toolbus_common.config import Configuration
from toolbus_common.config.guards.guard import BUILT_IN_KINDS
from toolbus_common.config_store.loading.document import ConfigPath, ConfigProblem, Document
from toolbus_common.guards.detectors import known_rules_of, option_problems, rules_of
from toolbus_common.guards.personal_data import model_options

_NO_RULES = (
    "finds nothing: 'except_rules' removes its rules, or they need 'options: {models: true}'; "
    "change 'rules'"
)
COVERAGE = "coverage"  # in the place of a guard's name, in a path of the administration API
_OF_LEVELS = frozenset({"arguments", "results", "prompts", "completions"})
# The phases in which a guard that is attached there can apply.
_REACHED = {
    "servers": frozenset({"arguments", "results", "definitions"}),
    "providers": frozenset({"prompts", "completions"}),
    "model_guards": frozenset({"prompts", "completions"}),
}
_PLACES = {
    "definitions": "a server or a tool",
    "prompts": "a key, a team, a customer, a provider or a model",
    "arguments": "a key, a team, a customer, a server or a tool",
}
_SAME_PLACES = {"results": "arguments", "completions": "prompts"}
# The sections whose entries have a field `guards`. The only other one is `anonymous`.
_ATTACHED = ("customers", "teams", "users", "keys", "groups", "access", "servers", "providers")


def problems(document: Document) -> Iterator[ConfigProblem]:
    """Yield a problem for each unknown name of a guard, server or rule, and each wrong option."""
    data = document.data
    guards = _object(data.get("guards"))
    for path, name in _attachments(data):
        if isinstance(name, str) and name not in guards:
            yield document.problem(path, _unknown("guard", name, guards, "add it under guards"))
    servers = _object(data.get("servers"))
    if COVERAGE in guards:
        yield document.problem(("guards", COVERAGE), "is reserved; choose another name")
    for name, guard in guards.items():
        server = _object(guard).get("server")
        if isinstance(server, str) and server not in servers:
            message = _unknown("server", server, servers, "add it under servers")
            yield document.problem(("guards", name, "server"), message)
        yield from _unknown_rules(document, name, _object(guard))
        yield from _wrong_options(document, name, _object(guard))


def warnings(document: Document, configuration: Configuration) -> Iterator[ConfigProblem]:
    """Yield a warning for each guard that checks nothing in a phase, or cannot load its model."""
    reached: dict[str, set[str]] = {}
    for path, name in _attachments(document.data):
        if isinstance(name, str):
            reached.setdefault(name, set()).update(_REACHED.get(str(path[0]), _OF_LEVELS))
    for name, guard in configuration.guards.items():
        place = ("guards", name)
        if reason := model_options.missing(guard.options if guard.kind == "pii" else {}):
            yield document.problem(place, reason)
        if guard.rules and guard.is_built_in and not rules_of(guard):
            yield document.problem(place, _NO_RULES)
        if guard.always:
            continue
        if name not in reached:
            yield document.problem(
                place,
                "is attached to nothing, so it checks nothing; name it in guards of a customer, "
                "team, key, server or tool, or set always: true",
            )
            continue
        for phase in guard.on:
            if phase not in reached[name]:
                where = _PLACES[_SAME_PLACES.get(phase, phase)]
                message = f"checks no {phase} where it is attached; attach it to {where}"
                yield document.problem(place, f"{message}, or remove {phase} from on")


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


def _wrong_options(document: Document, name: str, guard: dict[str, Any]) -> Iterator[ConfigProblem]:
    kind = guard.get("kind")
    if isinstance(kind, str) and kind in BUILT_IN_KINDS:
        for problem in option_problems(kind, _object(guard.get("options"))):
            yield document.problem(("guards", name, "options"), problem)


def _unknown(noun: str, name: str, known: Collection[str], fix: str) -> str:
    close = get_close_matches(name, list(known), n=1)
    hint = f"did you mean '{close[0]}'?" if close else fix
    return f"no {noun} '{name}' is {'known' if noun == 'rule' else 'configured'}; {hint}"


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
