"""Request that rules evaluate: principal, action and resource with their entities."""

import json
from dataclasses import dataclass
from typing import Any

from cedarpy import Entities

from toolbus_common.access.tool_patterns import full_name, granted
from toolbus_common.config import Configuration

NO_ENTITIES = Entities.from_json_str("[]")


@dataclass(frozen=True, slots=True)
class Asker:
    """A key with its hierarchy. A level that does not exist is an empty text."""

    key: str
    team: str = ""
    user: str = ""
    customer: str = ""
    environment: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """All inputs of a decision except arguments, time and what the run has read.

    `cost` is in micro-dollars. `reads` and `writes` are the tool's labels of information flow.
    """

    asker: Asker
    method: str
    server: str
    tool: str
    labels: tuple[str, ...] = ()
    cost: int = 0
    family: str = ""
    reads: tuple[str, ...] = ()
    writes: str = ""

    @property
    def request(self) -> dict[str, Any]:
        """Cedar's request without the context."""
        return {
            "principal": _uid("Key", self.asker.key),
            "action": _uid("Action", self.method),
            "resource": _uid("Tool", full_name(self.server, self.tool)),
        }

    @property
    def settled(self) -> dict[str, Any]:
        """The attributes of Cedar's context that depend on this case only."""
        return {"cost": self.cost, "family": self.family}


def labels_of(name: str, configuration: Configuration) -> tuple[str, ...]:
    """Return a tool's labels: the labels of all patterns that match its name."""
    found = {
        label
        for pattern, labels in configuration.labels.items()
        if granted((pattern,), name)
        for label in labels
    }
    return tuple(sorted(found))


def entities_of(case: Case) -> Entities:
    """Return the entities of the key and of the tool, with their attributes and parents."""
    asker = case.asker
    above = [("Team", asker.team), ("User", asker.user), ("Customer", asker.customer)]
    parents = [_uid(kind, name) for kind, name in above if name]
    key = {
        "team": asker.team,
        "user": asker.user,
        "customer": asker.customer,
        "environment": asker.environment,
    }
    tool = {
        "server": case.server,
        "name": case.tool,
        "labels": list(case.labels),
        "price": case.cost,
        "reads": list(case.reads),
        "writes": case.writes,
    }
    request, server = case.request, _uid("Server", case.server)
    entities = [
        {"uid": request["principal"], "attrs": key, "parents": parents},
        {"uid": request["resource"], "attrs": tool, "parents": [server]},
        {"uid": server, "attrs": {}, "parents": []},
        *({"uid": uid, "attrs": {}, "parents": []} for uid in parents),
    ]
    return Entities.from_json_str(json.dumps(entities))


def _uid(kind: str, name: str) -> dict[str, str]:
    return {"type": kind, "id": name}
