"""Audit: search of events, signed logs, proofs, exports, bundles, and legal holds."""

import re
from base64 import b64decode
from pathlib import Path
from tempfile import TemporaryDirectory
from time import time
from typing import Any, cast
from urllib.parse import quote

from fastapi import APIRouter
from starlette.responses import Response

from toolbus_common.contracts import AuditQuery, RowsReply
from toolbus_common.contracts.queries.base import Query
from toolbus_common.contracts.queries.sql_text import like
from toolbus_common.errors import InvalidError
from toolbus_common.evidence.collection import A, Evidence, gathered
from toolbus_ingress.console.api_client import ProblemError
from toolbus_ingress.console.pages.calls import queried
from toolbus_ingress.console.responses import download, redirect
from toolbus_ingress.console.visitor import SignedIn, Visitor, address

SHOWN = 100
MOST_BYTES = 32 << 20  # maximum size of an export
MOST_EVENTS = 20_000  # of a bundle; few, because this process also serves calls
DAY = 86_400
FORMATS = {"jsonl": "application/x-ndjson", "ocsf": "application/x-ndjson", "parquet": ""}
_API = "/api/v1/audit"
_PERSON = re.compile(r"[A-Za-z0-9@._:+-]{1,128}")
_EVENTS = """
SELECT formatDateTime(at, '%F %T') AS time, event, customer, key, server, tool, code, reason,
    call_id, detail, JSONExtractString(detail, 'by') AS by,
    concat(JSONExtractString(detail, 'kind'), ' ', JSONExtractString(detail, 'name')) AS entry
FROM events
WHERE at >= now() - INTERVAL {days:UInt16} DAY AND event LIKE {event:String}
    AND position(customer, {customer:String}) > 0 AND position(key, {key:String}) > 0
    AND ({text:String} = '' OR position(detail, {text:String}) > 0)
"""
_ORDER = "ORDER BY events.at DESC LIMIT 100"
_LOGS = """
SELECT customer, stream, max(checkpoints.size) AS events,
    formatDateTime(max(checkpoints.at), '%F %T') AS sealed, max(checkpoints.to) AS place,
    any(waiting) AS waiting, any(witnesses) AS witnesses
FROM checkpoints
LEFT JOIN (
    SELECT customer, stream, uniqExact(witness) AS witnesses FROM cosignatures
    GROUP BY customer, stream
) AS cosigned USING (customer, stream)
LEFT JOIN (
    SELECT events.customer AS customer, events.stream AS stream, count() AS waiting FROM events
    INNER JOIN (SELECT customer, stream, max(to) AS last FROM checkpoints GROUP BY customer, stream)
        AS sealed ON sealed.customer = events.customer AND sealed.stream = events.stream
    WHERE at >= now() - INTERVAL 1 DAY AND stream_seq > last
    GROUP BY customer, stream
) AS unsealed USING (customer, stream)
GROUP BY customer, stream ORDER BY sealed DESC LIMIT 200
"""
router = APIRouter(prefix="/audit")


@router.get("")
async def search_events(
    visitor: SignedIn,
    event: str = "",
    customer: str = "",
    key: str = "",
    person: str = "",
    text: str = "",
    days: int = 1,
) -> Response:
    """Return the newest events that match."""
    selected = {"event": event, "customer": customer, "key": key, "person": person, "text": text}
    span = str(max(1, min(days, 365)))
    named = ""
    if _PERSON.fullmatch(person):  # an unknown person has no pseudonym
        named = f"AND person('{person}') != '~' AND position(detail, person('{person}')) > 0"
    pattern = like(event if "*" in event else f"*{event}*")
    found = await queried(
        visitor, f"{_EVENTS} {named} {_ORDER}", event=pattern, customer=customer, key=key,
        text=text, days=span,
    )  # fmt: skip
    rows = [{**row, "about": _about(row)} for row in found.records]
    error = "" if named or not person else "A person is a name such as ann or operator:ann."
    return visitor.page(
        "audit.html", rows=rows, selected=selected, days=span, most=SHOWN, error=error
    )


@router.get("/evidence")
async def show_evidence(visitor: SignedIn) -> Response:
    """Return the signed logs, the exports and the legal holds."""
    return await _evidence(visitor)


@router.get("/proofs/{call}")
async def show_proofs(visitor: SignedIn, call: str) -> Response:
    """Return the proofs that the events of a call are in the signed log."""
    found = await visitor.api.get(f"{_API}/proofs/{quote(call, safe='')}")
    return visitor.page("audit_proofs.html", found=found)


@router.post("/export")
async def export_events(visitor: SignedIn) -> Response:
    """Return the selected events as one file."""
    form = visitor.form
    name = form.get("format", "jsonl")
    try:
        days = max(1, min(int(form.get("days", "1")), 3650))
    except ValueError:
        return await _evidence(visitor, error="Days must be a number, such as 7.")
    body: dict[str, Any] = {
        "format": name, "since": time() - days * DAY, "events": form.get("events", "").split(),
        "customers": form.get("customers", "").split(),
    }  # fmt: skip
    data = bytearray()
    try:
        while True:
            page = (await visitor.api.send("POST", f"{_API}/events", body)).data
            if len(data) > MOST_BYTES or (name == "parquet" and data and page["rows"]):
                return await _evidence(visitor, error=_too_large("this export"))
            data += b64decode(page["data"])
            if not page["next"]:
                break
            body["after"] = page["next"]
    except ProblemError as problem:
        return await _evidence(visitor, problem=problem)
    media_type = FORMATS.get(name) or "application/octet-stream"
    return download(bytes(data), f"events.{name}", media_type)


@router.post("/bundle")
async def export_bundle(visitor: SignedIn) -> Response:
    """Return signed evidence of one customer's log, for verification elsewhere."""
    customer = visitor.form.get("customer", "")
    try:
        log = await gathered(_EventQueries(visitor), customer)
        if log.size > MOST_EVENTS:
            return await _evidence(visitor, error=_too_large("this log"))
        body = await _bundle(log)
    except ProblemError as problem:
        return await _evidence(visitor, problem=problem)
    except InvalidError as error:
        return await _evidence(visitor, error=error.reason)
    return download(body, "evidence.zip", "application/zip")


@router.post("/holds")
async def change_hold(visitor: SignedIn) -> Response:
    """Place or remove a legal hold."""
    form = visitor.form
    path = f"{_API}/holds/{quote(form.get('customer', ''), safe='')}"
    reason = {"reason": form.get("reason", "")}
    try:
        if form.get("action") == "lift":
            await visitor.api.send("POST", f"{path}/lift", reason)
        else:
            await visitor.api.send("PUT", path, reason)
    except ProblemError as problem:
        return await _evidence(visitor, problem=problem)
    return redirect(address("audit", "evidence"))


class _EventQueries:
    """Sender of the queries of a bundle to the REST APIs."""

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor

    async def request(self, query: Query, _answer: type[A], seconds: float = 5.0) -> A:  # noqa: ARG002
        """Return the rows of a statement. Raises `ProblemError`."""
        assert isinstance(query, AuditQuery)  # noqa: S101 - a bundle sends no other
        body = query.model_dump()
        reply = (await self._visitor.api.send("POST", f"{_API}/query", body)).data
        return cast("A", RowsReply.model_validate(reply))


async def _bundle(log: Evidence) -> bytes:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "evidence.zip"
        await log.write(path)
        return path.read_bytes()


async def _evidence(visitor: Visitor, **shown: Any) -> Response:
    logs = await queried(visitor, _LOGS)
    holds = await visitor.api.get(f"{_API}/holds")
    state = await visitor.api.get("/api/v1/status", limit=1)
    keys = (each["details"].get("signed_by", "") for each in state["services"])
    return visitor.page(
        "audit_evidence.html",
        shown["problem"].status if "problem" in shown else 422 if shown else 200,
        logs=logs.records,
        holds=holds["items"],
        log_key=next(filter(None, keys), ""),
        formats=list(FORMATS),
        most=MOST_EVENTS,
        **shown,
    )


def _about(row: dict[str, Any]) -> list[str]:
    """Return the texts about an event in a line of the list."""
    tool = f"{row['server']}__{row['tool']}" if row["tool"] else row["server"]
    key = f"key {row['key']}" if row["key"] else ""
    by = f"by {row['by']}" if row["by"] else ""
    customer = "" if row["customer"] == "default" else row["customer"]
    found = (tool, row["entry"].strip(), key, row["code"], customer, by)
    return [each for each in found if each]


def _too_large(what: str) -> str:
    return (
        f"The console cannot download {what}: it is too large. Select fewer days or events, or use "
        "'toolbus audit export'."
    )
