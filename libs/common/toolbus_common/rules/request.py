"""Who asks and for what, as rules see it: the entities a call is judged with."""

import json
from dataclasses import dataclass
from typing import Any

from cedarpy import Entities

from toolbus_common.access.tool_patterns import full_name, granted
from toolbus_common.config import Configuration

NO_ENTITIES = Entities.from_json_str("[]")


@dataclass(frozen=True, slots=True)
class Asker:
    """A key with what is above it; what it does not have is empty."""

    key: str
    team: str = ""
    user: str = ""
    customer: str = ""
    environment: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """All that is known of a call before its arguments are read. `cost` is in micro-dollars."""

    asker: Asker
    method: str
    server: str
    tool: str
    labels: tuple[str, ...] = ()
    cost: int = 0
    family: str = ""

    @property
    def request(self) -> dict[str, Any]:
        """The question, without its context."""
        return {
            "principal": _uid("Key", self.asker.key),
            "action": _uid("Action", self.method),
            "resource": _uid("Tool", full_name(self.server, self.tool)),
        }

    @property
    def settled(self) -> dict[str, Any]:
        """What of the context does not depend on the single call."""
        return {"cost": self.cost, "family": self.family}


def labels_of(name: str, declared: Configuration) -> tuple[str, ...]:
    """The words about a tool: those of every pattern that covers it."""
    found = {
        label
        for pattern, labels in declared.labels.items()
        if granted((pattern,), name)
        for label in labels
    }
    return tuple(sorted(found))


def entities_of(case: Case) -> Entities:
    """The key and the tool with their attributes, and what they are in."""
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
