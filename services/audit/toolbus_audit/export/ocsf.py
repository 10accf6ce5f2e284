"""Map events to the Open Cybersecurity Schema Framework (OCSF), version 1.8.0 (no I/O).

Calls and programs map to API Activity, approvals to User Access Management, servers to Application
Lifecycle. Keys, definitions and the configuration map to Entity Management, and all other events to
Base Event. Fields without an attribute in the class are listed under `unmapped`, so that no field
is lost.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from toolbus_common.contracts.model_calls import is_model_method, model_name

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
class OcsfClass:
    """OCSF class, and the function that fills its attributes from an event."""

    uid: int
    category: int
    name: str
    activities: Mapping[int, str]
    fill: Callable[[Event], OcsfEvent]


@dataclass(frozen=True, slots=True)
class EventMapping:
    """Mapping of an event's name to a class, an activity (99: other), a severity and a status."""

    of: OcsfClass
    activity: int = OTHER
    severity: int = INFORMATIONAL
    status: int = SUCCESS


def ocsf_event_of(event: Event) -> OcsfEvent:
    """Map a decoded event to an OCSF event."""
    name = str(event["event"])
    mapping = _mapping_of(name, event)
    activity = mapping.of.activities.get(mapping.activity, name)
    record = {
        "class_uid": mapping.of.uid,
        "class_name": mapping.of.name,
        "category_uid": mapping.of.category,
        "activity_id": mapping.activity,
        "activity_name": activity,
        "type_uid": mapping.of.uid * 100 + mapping.activity,
        "severity_id": mapping.severity,
        "severity": _SEVERITIES[mapping.severity],
        "time": round(float(event["at"]) * 1000),
        "message": _message(name, event),
        "metadata": _metadata(name, event),
        **_status(mapping, event),
        **mapping.of.fill(event),
    }
    if left := {field: value for field, value in event.items() if _is_unmapped(field, value)}:
        record["unmapped"] = left
    return record


def encode_ocsf(line: bytes) -> bytes:
    """Encode an event's line as an OCSF event. Raises `ValueError` if it is not an event."""
    try:
        return msgspec.json.encode(ocsf_event_of(msgspec.json.decode(line)))
    except (msgspec.DecodeError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError("the line is not an event") from error


# -- attributes of every class ---------------------------------------------------------------

# Fields that map to an attribute of every class.
_PLACED = frozenset({"event", "id", "at", "customer", "seq", "call_id", "code", "reason"})


def _is_unmapped(field: str, value: Any) -> bool:
    return field not in _PLACED and value not in ("", None, [], {}, ())


def _metadata(name: str, event: Event) -> OcsfEvent:
    metadata: OcsfEvent = {
        "version": VERSION,
        "product": {"name": "Toolbus", "vendor_name": "Toolbus"},
        "uid": str(event["id"]),
        "event_code": name,
        "log_name": "events",
        "tenant_uid": str(event.get("customer", "")),
    }
    if call := event.get("call_id"):
        metadata["correlation_uid"] = str(call)
    if "seq" in event:
        metadata["sequence"] = int(event["seq"])
    if event.get("trace_id"):
        metadata["profiles"] = ["trace"]
    return metadata


def _status(mapping: EventMapping, event: Event) -> OcsfEvent:
    status: OcsfEvent = {"status_id": mapping.status, "status": _STATUSES[mapping.status]}
    if event.get("code"):
        status["status_code"] = str(event["code"])
    if event.get("reason"):
        status["status_detail"] = str(event["reason"])
    return status


def _message(name: str, event: Event) -> str:
    about = _tool_name(event) or str(event.get("name") or event.get("key") or "")
    return " ".join(part for part in (name, about) if part)


def _tool_name(event: Event) -> str:
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
    # The caller's address is not recorded; its key identifies it.
    record: OcsfEvent = {
        "actor": _actor(event),
        "api": api,
        "src_endpoint": {"name": str(event.get("key") or "unknown")},
        "dst_endpoint": {"svc_name": server},
        "resources": [_resource(event, server)],
    }
    if trace := event.get("trace_id"):
        record["trace"] = {"uid": str(trace)}
    return record


def _resource(event: Event, server: str) -> OcsfEvent:
    if is_model_method(str(event.get("method"))):
        return {"name": model_name(server, str(event.get("tool") or "")), "type": "model"}
    return {"name": _tool_name(event) or server, "type": "tool"}


def _failure(event: Event) -> OcsfEvent:
    failure = {"error": event.get("code"), "error_message": event.get("reason")}
    return {field: str(value) for field, value in failure.items() if value}


def _actor(event: Event) -> OcsfEvent:
    user = event.get("user")
    actor: OcsfEvent = {"app_uid": str(event.get("key") or "unknown")}
    if user:
        actor["user"] = {"name": str(user), "type_id": 1}
    return actor


# -- other classes ---------------------------------------------------------------------------


def _by(event: Event) -> OcsfEvent:
    """Return the actor, if the event names one."""
    return {"actor": {"user": {"name": str(event["by"])}}} if event.get("by") else {}


def _access(event: Event) -> OcsfEvent:
    return {
        "user": {"name": str(event.get("key") or "unknown"), "type_id": 4, "type": "Service"},
        "privileges": [f"call {_tool_name(event)}"],
        **_by(event),
    }


def _entity(event: Event) -> OcsfEvent:
    name = str(event["event"])
    if name.startswith("definition."):
        entity = {"name": _tool_name(event), "type": "tool definition"}
        digest = str(event.get("definition_digest") or "")
        return {"entity": entity | ({"version": digest} if digest else {}), **_by(event)}
    if name.startswith("key."):
        return {"entity": {"name": str(event.get("key")), "type": "key"}, **_by(event)}
    entity = {
        "name": str(event.get("name") or "configuration"),
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
API = OcsfClass(6003, 6, "API Activity", {2: "Read"}, _call)
ACCESS = OcsfClass(3005, 3, "User Access Management", {1: "Assign Privileges"}, _access)
ENTITY = OcsfClass(3004, 3, "Entity Management", _CHANGES, _entity)
LIFE = OcsfClass(6002, 6, "Application Lifecycle", _LIFE, _server)
BASE = OcsfClass(0, 0, "Base Event", {}, _nothing)

_BASE = EventMapping(BASE)  # also for events of unknown names
_MAPPINGS = {
    "call.allowed": EventMapping(API),
    "call.extended": EventMapping(API),
    "call.completed": EventMapping(API),
    "call.denied": EventMapping(API, severity=LOW, status=FAILURE),
    "call.failed": EventMapping(API, severity=LOW, status=FAILURE),
    "call.replayed": EventMapping(API),
    "model.used": EventMapping(API),
    "guard.failed": EventMapping(API, severity=MEDIUM, status=FAILURE),
    "guard.message": EventMapping(API, severity=LOW),
    "flow.reset": EventMapping(ENTITY, 3, MEDIUM),
    "cache.purged": EventMapping(ENTITY, 4),
    "run.started": EventMapping(API),
    "run.completed": EventMapping(API),
    "run.failed": EventMapping(API, severity=LOW, status=FAILURE),
    "access.rejected": EventMapping(BASE, severity=MEDIUM, status=FAILURE),
    "approval.granted": EventMapping(ACCESS, 1),
    "approval.requested": EventMapping(ACCESS),
    "approval.rejected": EventMapping(ACCESS, severity=LOW, status=FAILURE),
    "approval.expired": EventMapping(ACCESS, status=FAILURE),
    "approval.used": EventMapping(ACCESS),
    "approval.withdrawn": EventMapping(ACCESS),
    "key.created": EventMapping(ENTITY, 1),
    "key.revoked": EventMapping(ENTITY, 4),
    "config.applied": EventMapping(ENTITY, 3),
    "config.changed": EventMapping(ENTITY, 3),
    "definition.pinned": EventMapping(ENTITY, 1),
    "definition.changed": EventMapping(ENTITY, 3, MEDIUM),
    "definition.flagged": EventMapping(ENTITY, 1, MEDIUM),
    "definition.approved": EventMapping(ENTITY, 8),
    "definition.rejected": EventMapping(ENTITY, 9, LOW),
    "server.connected": EventMapping(LIFE, 3),
    "server.lost": EventMapping(LIFE, 4, MEDIUM, FAILURE),
    "server.faulted": EventMapping(LIFE, severity=LOW, status=FAILURE),
    "server.drained": EventMapping(LIFE, 7),
    "server.undrained": EventMapping(LIFE, 6),
    "server.reset": EventMapping(LIFE, 5),
    "breaker.opened": EventMapping(LIFE, 7, MEDIUM, FAILURE),
    "breaker.closed": EventMapping(LIFE, 6),
    **dict.fromkeys(
        (
            "connection.created", "connection.ended", "context.listed", "context.measured",
            "context.spent", "events.expired", "grant.created", "grant.ended", "hold.lifted",
            "hold.placed", "ledger.opened", "person.erased", "signin.denied",
            "witness.contradicted",
        ),
        _BASE,
    ),
}  # fmt: skip


def _mapping_of(name: str, event: Event) -> EventMapping:
    if name == "config.changed":
        before, after = bool(event.get("before")), bool(event.get("after"))
        return EventMapping(ENTITY, 3 if before and after else 1 if after else 4)
    if name == "call.completed" and event.get("is_error"):
        return EventMapping(API, severity=LOW, status=FAILURE)
    mapping = _MAPPINGS.get(name, _BASE)
    if mapping.of is API and str(event.get("method", "")).endswith(("/read", "/get", "/list")):
        return EventMapping(API, READ, mapping.severity, mapping.status)
    return mapping


def mapped_events() -> frozenset[str]:
    """Return the names of events that have a mapping of their own."""
    return frozenset(_MAPPINGS)


def severity_of(name: str) -> int:
    """Return the severity of events of a name: 1 informational, 2 low, 3 medium."""
    return _MAPPINGS.get(name, _BASE).severity
