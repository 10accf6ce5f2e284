"""Rules in the file: texts that are no rules, and names in them that nobody declared."""

from collections.abc import Iterator
from difflib import get_close_matches

from toolbus_common import rules as cedar
from toolbus_common.config import Configuration
from toolbus_common.config_store.loading.document import ConfigProblem, Document, Place

_SECTIONS = {
    "Team": "teams",
    "User": "users",
    "Customer": "customers",
    "Server": "servers",
}


def faults(document: Document) -> Iterator[ConfigProblem]:
    """Everything that is wrong with the rules' texts."""
    for place, text in _texts(document):
        for said in cedar.faults(text):
            yield document.fault(place, said)


def warnings(document: Document, declared: Configuration) -> Iterator[ConfigProblem]:
    """Names in sound rules that lead nowhere: such a rule applies to nothing."""
    for place, text in _texts(document):
        for kind, name in cedar.named(text):
            known = list(getattr(declared, _SECTIONS[kind], ())) if kind in _SECTIONS else [name]
            if name not in known:
                close = get_close_matches(name, known, n=1)
                hint = f"; did you mean '{close[0]}'?" if close else ""
                yield document.fault(place, f'names {kind}::"{name}", which is not declared{hint}')


def _texts(document: Document) -> Iterator[tuple[Place, str]]:
    section = document.data.get("rules")
    for name, rule in section.items() if isinstance(section, dict) else ():
        text = rule.get("cedar") if isinstance(rule, dict) else None
        if isinstance(text, str):
            yield ("rules", name, "cedar"), text
