"""Validation of rules: syntax of Cedar, and names of unknown entries."""

from collections.abc import Iterator
from difflib import get_close_matches

from toolbus_common import rules as cedar
from toolbus_common.config import Configuration
from toolbus_common.config_store.loading.document import ConfigPath, ConfigProblem, Document

_SECTIONS = {
    "Team": "teams",
    "User": "users",
    "Customer": "customers",
    "Server": "servers",
}


def problems(document: Document) -> Iterator[ConfigProblem]:
    """Yield a problem for each syntax or type error in the rules."""
    for path, text in _texts(document):
        for message in cedar.problems(text):
            yield document.problem(path, message)


def warnings(document: Document, configuration: Configuration) -> Iterator[ConfigProblem]:
    """Yield a warning for each unknown name in a valid rule, which then matches no call."""
    for path, text in _texts(document):
        for kind, name in cedar.named(text):
            known = (
                list(getattr(configuration, _SECTIONS[kind], ())) if kind in _SECTIONS else [name]
            )
            if name not in known:
                close = get_close_matches(name, known, n=1)
                hint = f"; did you mean '{close[0]}'?" if close else ""
                message = f'names {kind}::"{name}", which is not configured{hint}'
                yield document.problem(path, message)


def _texts(document: Document) -> Iterator[tuple[ConfigPath, str]]:
    section = document.data.get("rules")
    for name, rule in section.items() if isinstance(section, dict) else ():
        text = rule.get("cedar") if isinstance(rule, dict) else None
        if isinstance(text, str):
            yield ("rules", name, "cedar"), text
