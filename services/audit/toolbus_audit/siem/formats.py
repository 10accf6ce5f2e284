"""What is posted to a SIEM, and what its answer says of each event. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from toolbus_audit.delivery.http_client import HttpResponse
from toolbus_audit.siem.records import Record
from toolbus_common import strict_json
from toolbus_common.config import Sink

SPLUNK, ELASTIC = "splunk", "elastic"
_CONFLICT = 409  # it has this event already
_TOO_MANY = 429
_JSON, _LINES = "application/json", "application/x-ndjson"
_encode = msgspec.json.encode


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of what was posted: refused for good, or not taken now (`again`)."""

    refused: tuple[Record, ...] = ()
    again: bool = False
    why: str = ""


def media_of(sink: Sink) -> str:
    """The type of what is posted."""
    return _JSON if sink.shape == SPLUNK else _LINES


def body_of(sink: Sink, records: Sequence[Record], host: str) -> bytes:
    """The body of one POST."""
    if sink.shape == SPLUNK:
        return b"\n".join(_splunk(sink, each, host) for each in records)
    if sink.shape == ELASTIC:
        return b"".join(_elastic(sink, each) for each in records)
    return b"".join(b"%b\n" % each.body for each in records)


def verdict(sink: Sink, records: Sequence[Record], answered: HttpResponse) -> Verdict:
    """What an answer that is good says of each event."""
    if sink.shape != ELASTIC:
        return Verdict()
    try:
        told = strict_json.members(answered.body)
        if not told["errors"]:
            return Verdict()
        items = [item["create"] for item in told["items"]]
        statuses = [int(item["status"]) for item in items]
    except (KeyError, TypeError, ValueError, OverflowError):
        return Verdict(again=True, why="its answer is none of a bulk request")
    if len(statuses) != len(records):
        return Verdict(again=True, why="its answer does not tell of every event")
    return _of_items(records, items, statuses)


def _of_items(records: Sequence[Record], items: list[Any], statuses: list[int]) -> Verdict:
    bad = [
        (record, status, item)
        for record, status, item in zip(records, statuses, items, strict=True)
        if status >= 300 and status != _CONFLICT  # noqa: PLR2004 - as HTTP has it
    ]
    why = next((f"it answered {status} ({_kind(item)})" for _, status, item in bad), "")
    if any(status == _TOO_MANY or status >= 500 for _, status, _ in bad):  # noqa: PLR2004
        return Verdict(again=True, why=why)
    return Verdict(tuple(record for record, _, _ in bad), why=why)


def _kind(item: Any) -> str:
    error = item.get("error")
    return str(error.get("type", "?"))[:64] if isinstance(error, dict) else "?"


def _splunk(sink: Sink, record: Record, host: str) -> bytes:
    return _encode(
        {
            "time": record.at,
            "host": host,
            "source": "toolbus",
            "sourcetype": "ocsf" if sink.format == "ocsf" else "toolbus:event",
            "event": msgspec.Raw(record.body),
        }
    )


def _elastic(sink: Sink, record: Record) -> bytes:
    """With the event's id for the document's: told twice, it is there once."""
    at = datetime.fromtimestamp(record.at, UTC).isoformat().replace("+00:00", "Z")
    action = _encode({"create": {"_index": sink.index, "_id": record.id}})
    return b'%b\n{"@timestamp":"%b",%b\n' % (action, at.encode(), record.body[1:])
