"""A fact as an event of the Open Cybersecurity Schema Framework, version 1.8.0. Pure.

Calls and programs are API Activity, approvals User Access Management, keys, definitions and the
configuration Entity Management, servers Application Lifecycle; what fits none is a Base Event. What
has no place in a class stands under `unmapped`, so that nothing of a fact is lost.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

VERSION = "1.8.0"
Fact = Mapping[str, Any]
Event = dict[str, Any]

OTHER = 99
READ = 2
INFORMATIONAL, LOW, MEDIUM = 1, 2, 3
SUCCESS, FAILURE = 1, 2
_SEVERITIES = {INFORMATIONAL: "Informational", LOW: "Low", MEDIUM: "Medium"}
_STATUSES = {SUCCESS: "Success", FAILURE: "Failure"}


@dataclass(frozen=True, slots=True)
class Class:
    """A class of events, and how a fact is told as one."""

    uid: int
    category: int
    name: str
    activities: Mapping[int, str]
    fill: Callable[[Fact], Event]


@dataclass(frozen=True, slots=True)
class Meant:
    """What a fact's name means: a class, its activity (99: under its own name), its severity."""

    of: Class
    activity: int = OTHER
    severity: int = INFORMATIONAL
    status: int = SUCCESS


def event_of(fact: Fact) -> Event:
    """The event of a fact as its line decodes."""
    name = str(fact["fact"])
    meant = _meant(name, fact)
    activity = meant.of.activities.get(meant.activity, name)
    event = {
        "class_uid": meant.of.uid,
        "class_name": meant.of.name,
        "category_uid": meant.of.category,
        "activity_id": meant.activity,
        "activity_name": activity,
        "type_uid": meant.of.uid * 100 + meant.activity,
        "severity_id": meant.severity,
        "severity": _SEVERITIES[meant.severity],
        "time": round(float(fact["at"]) * 1000),
        "message": _message(name, fact),
        "metadata": _metadata(name, fact),
        **_status(meant, fact),
        **meant.of.fill(fact),
    }
    if left := {field: value for field, value in fact.items() if _is_left(field, value)}:
        event["unmapped"] = left
    return event


def encoded(line: bytes) -> bytes:
    """A fact's line as an event's. Raises `ValueError` when it is none."""
    try:
        return msgspec.json.encode(event_of(msgspec.json.decode(line)))
    except (msgspec.DecodeError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError("the line is no fact") from error


# -- what every event has --------------------------------------------------------------------

# What has a place of its own in every event; the rest is under `unmapped`.
_PLACED = frozenset({"fact", "id", "at", "scope", "seq", "call_id", "code", "reason"})


def _is_left(field: str, value: Any) -> bool:
    return field not in _PLACED and value not in ("", None, [], {}, ())


def _metadata(name: str, fact: Fact) -> Event:
    told: Event = {
        "version": VERSION,
        "product": {"name": "Toolbus", "vendor_name": "Toolbus"},
        "uid": str(fact["id"]),
        "event_code": name,
        "log_name": "facts",
        "tenant_uid": str(fact.get("scope", "")),
    }
    if call := fact.get("call_id"):
        told["correlation_uid"] = str(call)
    if "seq" in fact:
        told["sequence"] = int(fact["seq"])
    if fact.get("trace_id"):
        told["profiles"] = ["trace"]
    return told


def _status(meant: Meant, fact: Fact) -> Event:
    told: Event = {"status_id": meant.status, "status": _STATUSES[meant.status]}
    if fact.get("code"):
        told["status_code"] = str(fact["code"])
    if fact.get("reason"):
        told["status_detail"] = str(fact["reason"])
    return told


def _message(name: str, fact: Fact) -> str:
    about = _tool(fact) or str(fact.get("name") or fact.get("key") or "")
    return " ".join(part for part in (name, about) if part)


def _tool(fact: Fact) -> str:
    server, tool = str(fact.get("server") or ""), str(fact.get("tool") or "")
    return f"{server}__{tool}" if tool else server


# -- API Activity: calls and programs --------------------------------------------------------


def _call(fact: Fact) -> Event:
    server = str(fact.get("server") or "toolbus")
    api: Event = {
        "operation": str(fact.get("tool") or fact.get("method") or "call"),
        "service": {"name": server},
        "request": {"uid": str(fact.get("call_id") or fact["id"])},
    }
    if method := fact.get("method"):
        api["group"] = {"name": str(method)}
    if failed := _failure(fact):
        api["response"] = failed
    # An agent's address is not recorded: the key it came with says who it is.
    event: Event = {
        "actor": _actor(fact),
        "api": api,
        "src_endpoint": {"name": str(fact.get("key") or "unknown")},
        "dst_endpoint": {"svc_name": server},
        "resources": [{"name": _tool(fact) or server, "type": "tool"}],
    }
    if trace := fact.get("trace_id"):
        event["trace"] = {"uid": str(trace)}
    return event


def _failure(fact: Fact) -> Event:
    told = {"error": fact.get("code"), "error_message": fact.get("reason")}
    return {field: str(value) for field, value in told.items() if value}


def _actor(fact: Fact) -> Event:
    user = fact.get("user")
    actor: Event = {"app_uid": str(fact.get("key") or "unknown")}
    if user:
        actor["user"] = {"name": str(user), "type_id": 1}
    return actor


# -- the others ------------------------------------------------------------------------------


def _by(fact: Fact) -> Event:
    """Who did it, where somebody said so."""
    return {"actor": {"user": {"name": str(fact["by"])}}} if fact.get("by") else {}


def _access(fact: Fact) -> Event:
    return {
        "user": {"name": str(fact.get("key") or "unknown"), "type_id": 4, "type": "Service"},
        "privileges": [f"call {_tool(fact)}"],
        **_by(fact),
    }


def _entity(fact: Fact) -> Event:
    name = str(fact["fact"])
    if name.startswith("definition."):
        entity = {"name": _tool(fact), "type": "tool definition"}
        digest = str(fact.get("definition_digest") or "")
        return {"entity": entity | ({"version": digest} if digest else {}), **_by(fact)}
    if name.startswith("key."):
        return {"entity": {"name": str(fact.get("key")), "type": "key"}, **_by(fact)}
    entity = {
        "name": str(fact.get("name") or "declaration"),
        "type": str(fact.get("kind") or "configuration"),
        "version": str(fact.get("revision") or 0),
    }
    return {"entity": entity, **_by(fact)}


def _server(fact: Fact) -> Event:
    app: Event = {"name": str(fact.get("server") or "unknown")}
    if version := fact.get("version"):
        app["version"] = str(version)
    return {"app": app}


def _nothing(_: Fact) -> Event:
    return {}


_CHANGES = {1: "Create", 2: "Read", 3: "Update", 4: "Delete", 8: "Enable", 9: "Disable"}
_LIFE = {3: "Start", 4: "Stop", 5: "Restart", 6: "Enable", 7: "Disable", 8: "Update"}
API = Class(6003, 6, "API Activity", {2: "Read"}, _call)
ACCESS = Class(3005, 3, "User Access Management", {1: "Assign Privileges"}, _access)
ENTITY = Class(3004, 3, "Entity Management", _CHANGES, _entity)
LIFE = Class(6002, 6, "Application Lifecycle", _LIFE, _server)
BASE = Class(0, 0, "Base Event", {}, _nothing)

_MEANT = {
    "call.allowed": Meant(API),
    "call.extended": Meant(API),
    "call.completed": Meant(API),
    "call.denied": Meant(API, severity=LOW, status=FAILURE),
    "call.failed": Meant(API, severity=LOW, status=FAILURE),
    "call.replayed": Meant(API),
    "run.started": Meant(API),
    "run.completed": Meant(API),
    "run.failed": Meant(API, severity=LOW, status=FAILURE),
    "access.rejected": Meant(BASE, severity=MEDIUM, status=FAILURE),
    "approval.granted": Meant(ACCESS, 1),
    "approval.asked": Meant(ACCESS),
    "approval.rejected": Meant(ACCESS, severity=LOW, status=FAILURE),
    "approval.expired": Meant(ACCESS, status=FAILURE),
    "approval.used": Meant(ACCESS),
    "approval.withdrawn": Meant(ACCESS),
    "key.created": Meant(ENTITY, 1),
    "key.revoked": Meant(ENTITY, 4),
    "config.applied": Meant(ENTITY, 3),
    "definition.pinned": Meant(ENTITY, 1),
    "definition.changed": Meant(ENTITY, 3, MEDIUM),
    "definition.approved": Meant(ENTITY, 8),
    "definition.rejected": Meant(ENTITY, 9, LOW),
    "server.connected": Meant(LIFE, 3),
    "server.lost": Meant(LIFE, 4, MEDIUM, FAILURE),
    "server.faulted": Meant(LIFE, severity=LOW, status=FAILURE),
    "server.drained": Meant(LIFE, 7),
    "server.undrained": Meant(LIFE, 6),
    "server.reset": Meant(LIFE, 5),
    "breaker.opened": Meant(LIFE, 7, MEDIUM, FAILURE),
    "breaker.closed": Meant(LIFE, 6),
}
_BASE = Meant(BASE)


def _meant(name: str, fact: Fact) -> Meant:
    if name == "config.changed":
        before, after = bool(fact.get("before")), bool(fact.get("after"))
        return Meant(ENTITY, 3 if before and after else 1 if after else 4)
    if name == "call.completed" and fact.get("is_error"):
        return Meant(API, severity=LOW, status=FAILURE)
    meant = _MEANT.get(name, _BASE)
    if meant.of is API and str(fact.get("method", "")).endswith(("/read", "/get", "/list")):
        return Meant(API, READ, meant.severity, meant.status)
    return meant


def severity_of(name: str) -> int:
    """How grave facts of a name are: 1 informational, 2 low, 3 medium."""
    return _MEANT.get(name, _BASE).severity
