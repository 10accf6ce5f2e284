"""Request bodies for SIEMs, and the results in their responses (no I/O)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from toolbus_audit.siem.records import Record
from toolbus_common import strict_json
from toolbus_common.config import Sink
from toolbus_common.egress.http_messages import HttpResponse

SPLUNK, ELASTIC = "splunk", "elastic"
_CONFLICT = 409  # the document exists already
_TOO_MANY = 429
_JSON, _LINES = "application/json", "application/x-ndjson"
_encode = msgspec.json.encode


@dataclass(frozen=True, slots=True)
class DeliveryResult:
    """Result of a POST: the permanently rejected records, or a request to retry all records."""

    rejected: tuple[Record, ...] = ()
    retry: bool = False
    reason: str = ""


def content_type(sink: Sink) -> str:
    """Return the content type of requests."""
    return _JSON if sink.shape == SPLUNK else _LINES


def body_of(sink: Sink, records: Sequence[Record], host: str) -> bytes:
    """Return the body of one POST."""
    if sink.shape == SPLUNK:
        return b"\n".join(_splunk(sink, each, host) for each in records)
    if sink.shape == ELASTIC:
        return b"".join(_elastic(sink, each) for each in records)
    return b"".join(b"%b\n" % each.body for each in records)


def result_of(sink: Sink, records: Sequence[Record], response: HttpResponse) -> DeliveryResult:
    """Return the result of a POST from its response, which has a status 2xx."""
    if sink.shape != ELASTIC:
        return DeliveryResult()
    try:
        body = strict_json.members(response.body)
        if not body["errors"]:
            return DeliveryResult()
        items = [item["create"] for item in body["items"]]
        statuses = [int(item["status"]) for item in items]
    except (KeyError, TypeError, ValueError, OverflowError):
        return DeliveryResult(retry=True, reason="its response is not a response of the bulk API")
    if len(statuses) != len(records):
        return DeliveryResult(retry=True, reason="its response does not list every event")
    return _result_of_items(records, items, statuses)


def _result_of_items(
    records: Sequence[Record], items: list[Any], statuses: list[int]
) -> DeliveryResult:
    bad = [
        (record, status, item)
        for record, status, item in zip(records, statuses, items, strict=True)
        if status >= 300 and status != _CONFLICT  # noqa: PLR2004 - HTTP status
    ]
    reason = next(
        (f"it returned status {status} ({_error_type(item)})" for _, status, item in bad), ""
    )
    if any(status == _TOO_MANY or status >= 500 for _, status, _ in bad):  # noqa: PLR2004
        return DeliveryResult(retry=True, reason=reason)
    return DeliveryResult(tuple(record for record, _, _ in bad), reason=reason)


def _error_type(item: Any) -> str:
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
    """Return a create action with the event's id, so that a resent event is not duplicated."""
    at = datetime.fromtimestamp(record.at, UTC).isoformat().replace("+00:00", "Z")
    action = _encode({"create": {"_index": sink.index, "_id": record.id}})
    return b'%b\n{"@timestamp":"%b",%b\n' % (action, at.encode(), record.body[1:])
