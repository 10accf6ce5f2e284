"""An event as an event of the Open Cybersecurity Schema Framework, version 1.8.0. Pure.

Calls and programs are API Activity, approvals User Access Management, keys, definitions and the
configuration Entity Management, servers Application Lifecycle; what fits none is a Base Event. What
has no place in a class stands under `unmapped`, so that nothing of an event is lost.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

VERSION = "1.8.0"
Event = Mapping[str, Any]
OcsfEvent = dict[str, Any]

OTHER = 99
READ = 2
INFORMATIONAL, LOW, MEDIUM = 1, 2, 3
SUCCESS, FAILURE = 1, 2
_SEVERITIES = {INFORMATIONAL: "Informational", LOW: "Low", MEDIUM: "Medium"}
_STATUSES = {SUCCESS: "Success", FAILURE: "Failure"}


@dataclass(frozen=True, slots=True)
class Class:
    """A class of events, and how an event is told as one."""

    uid: int
    category: int
    name: str
    activities: Mapping[int, str]
    fill: Callable[[Event], OcsfEvent]


@dataclass(frozen=True, slots=True)
class Meant:
    """What an event's name means: a class, its activity (99: under its own name), its severity."""

    of: Class
    activity: int = OTHER
    severity: int = INFORMATIONAL
    status: int = SUCCESS


def ocsf_event_of(event: Event) -> OcsfEvent:
    """The event of an event as its line decodes."""
    name = str(event["event"])
    meant = _meant(name, event)
    activity = meant.of.activities.get(meant.activity, name)
    record = {
        "class_uid": meant.of.uid,
        "class_name": meant.of.name,
        "category_uid": meant.of.category,
        "activity_id": meant.activity,
        "activity_name": activity,
        "type_uid": meant.of.uid * 100 + meant.activity,
        "severity_id": meant.severity,
        "severity": _SEVERITIES[meant.severity],
        "time": round(float(event["at"]) * 1000),
        "message": _message(name, event),
        "metadata": _metadata(name, event),
        **_status(meant, event),
        **meant.of.fill(event),
    }
    if left := {field: value for field, value in event.items() if _is_left(field, value)}:
        record["unmapped"] = left
    return record


def encoded(line: bytes) -> bytes:
    """An event's line as an event's. Raises `ValueError` when it is none."""
    try:
        return msgspec.json.encode(ocsf_event_of(msgspec.json.decode(line)))
    except (msgspec.DecodeError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError("the line is no event") from error


# -- what every event has --------------------------------------------------------------------

# What has a place of its own in every event; the rest is under `unmapped`.
_PLACED = frozenset({"event", "id", "at", "customer", "seq", "call_id", "code", "reason"})


def _is_left(field: str, value: Any) -> bool:
    return field not in _PLACED and value not in ("", None, [], {}, ())


def _metadata(name: str, event: Event) -> OcsfEvent:
    told: OcsfEvent = {
        "version": VERSION,
        "product": {"name": "Toolbus", "vendor_name": "Toolbus"},
        "uid": str(event["id"]),
        "event_code": name,
        "log_name": "events",
        "tenant_uid": str(event.get("customer", "")),
    }
    if call := event.get("call_id"):
        told["correlation_uid"] = str(call)
    if "seq" in event:
        told["sequence"] = int(event["seq"])
    if event.get("trace_id"):
        told["profiles"] = ["trace"]
    return told


def _status(meant: Meant, event: Event) -> OcsfEvent:
    told: OcsfEvent = {"status_id": meant.status, "status": _STATUSES[meant.status]}
    if event.get("code"):
        told["status_code"] = str(event["code"])
    if event.get("reason"):
        told["status_detail"] = str(event["reason"])
    return told


def _message(name: str, event: Event) -> str:
    about = _tool(event) or str(event.get("name") or event.get("key") or "")
    return " ".join(part for part in (name, about) if part)


def _tool(event: Event) -> str:
    server, tool = str(event.get("server") or ""), str(event.get("tool") or "")
    return f"{server}__{tool}" if tool else server


# -- API Activity: calls and programs --------------------------------------------------------


def _call(event: Event) -> OcsfEvent:
    server = str(event.get("server") or "toolbus")
    api: OcsfEvent = {
        "operation": str(event.get("tool") or event.get("method") or "call"),
        "service": {"name": server},
        "request": {"uid": str(event.get("call_id") or event["id"])},
    }
    if method := event.get("method"):
        api["group"] = {"name": str(method)}
    if failed := _failure(event):
        api["response"] = failed
    # An agent's address is not recorded: the key it came with says who it is.
    record: OcsfEvent = {
        "actor": _actor(event),
        "api": api,
        "src_endpoint": {"name": str(event.get("key") or "unknown")},
        "dst_endpoint": {"svc_name": server},
        "resources": [{"name": _tool(event) or server, "type": "tool"}],
    }
    if trace := event.get("trace_id"):
        record["trace"] = {"uid": str(trace)}
    return record


def _failure(event: Event) -> OcsfEvent:
    told = {"error": event.get("code"), "error_message": event.get("reason")}
    return {field: str(value) for field, value in told.items() if value}


def _actor(event: Event) -> OcsfEvent:
    user = event.get("user")
    actor: OcsfEvent = {"app_uid": str(event.get("key") or "unknown")}
    if user:
        actor["user"] = {"name": str(user), "type_id": 1}
    return actor


# -- the others ------------------------------------------------------------------------------


def _by(event: Event) -> OcsfEvent:
    """Who did it, where somebody said so."""
    return {"actor": {"user": {"name": str(event["by"])}}} if event.get("by") else {}


def _access(event: Event) -> OcsfEvent:
    return {
        "user": {"name": str(event.get("key") or "unknown"), "type_id": 4, "type": "Service"},
        "privileges": [f"call {_tool(event)}"],
        **_by(event),
    }


def _entity(event: Event) -> OcsfEvent:
    name = str(event["event"])
    if name.startswith("definition."):
        entity = {"name": _tool(event), "type": "tool definition"}
        digest = str(event.get("definition_digest") or "")
        return {"entity": entity | ({"version": digest} if digest else {}), **_by(event)}
    if name.startswith("key."):
        return {"entity": {"name": str(event.get("key")), "type": "key"}, **_by(event)}
    entity = {
        "name": str(event.get("name") or "declaration"),
        "type": str(event.get("kind") or "configuration"),
        "version": str(event.get("revision") or 0),
    }
    return {"entity": entity, **_by(event)}


def _server(event: Event) -> OcsfEvent:
    app: OcsfEvent = {"name": str(event.get("server") or "unknown")}
    if version := event.get("version"):
        app["version"] = str(version)
    return {"app": app}


def _nothing(_: Event) -> OcsfEvent:
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
    "approval.requested": Meant(ACCESS),
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


def _meant(name: str, event: Event) -> Meant:
    if name == "config.changed":
        before, after = bool(event.get("before")), bool(event.get("after"))
        return Meant(ENTITY, 3 if before and after else 1 if after else 4)
    if name == "call.completed" and event.get("is_error"):
        return Meant(API, severity=LOW, status=FAILURE)
    meant = _MEANT.get(name, _BASE)
    if meant.of is API and str(event.get("method", "")).endswith(("/read", "/get", "/list")):
        return Meant(API, READ, meant.severity, meant.status)
    return meant


def severity_of(name: str) -> int:
    """How grave events of a name are: 1 informational, 2 low, 3 medium."""
    return _MEANT.get(name, _BASE).severity
