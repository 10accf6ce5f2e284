"""Proofs that the events of a call are in their customer's signed log."""

import asyncio
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from toolbus_common.access.administrators import Administrator
from toolbus_common.admin_api.installation_models import EventProof
from toolbus_common.contracts import AdminReply, AdminRequest, AuditQuery, RowsReply
from toolbus_common.errors import UnknownEntryError
from toolbus_common.evidence.verify import Checkpoint, Key, MalformedError, UnreadableError
from toolbus_policy.admin.records.event_queries import SECONDS, EventQueries, json_reply
from toolbus_policy.admin.records.inclusion import Tree, proves

MOST_LEAVES = 100_000  # between two checkpoints of one proof
PAGE = 10_000  # rows, the `LIMIT` of `_LEAVES`
_OF_CALL = """
SELECT customer, stream, stream_seq, line, event, hex(SHA256(concat(char(0), detail))) AS leaf
FROM events WHERE call_id = {call:String} AND stream != ''
ORDER BY stream_seq, line LIMIT 100
"""
_CHECKPOINTS = """
SELECT size, to, edge, note FROM checkpoints
WHERE customer = {customer:String} AND stream = {stream:String} AND {condition}
ORDER BY size {order}, at {order} LIMIT 1
"""
_LEAVES = """
SELECT leaf FROM (
    SELECT stream_seq, line, hex(SHA256(concat(char(0), detail))) AS leaf FROM events
    WHERE customer = {customer:String} AND stream = {stream:String}
        AND stream_seq > {after:UInt64} AND stream_seq <= {to:UInt64}
    UNION ALL
    SELECT stream_seq, line, hex(SHA256(concat(char(0), raw))) AS leaf FROM dead_letters
    WHERE endsWith(subject, concat('.', {customer:String}))
        AND stream_seq > {after:UInt64} AND stream_seq <= {to:UInt64}
)
ORDER BY stream_seq, line LIMIT 10000 OFFSET {skipped:UInt64}
"""
_WAITING = (
    "No checkpoint contains this event yet. Checkpoints follow some seconds after their events."
)
_MISSING = (
    "Events between its checkpoints are not in the tables, or are too many for this proof. "
    "Export a bundle, and verify it."
)


@dataclass(frozen=True, slots=True)
class _Part:
    """A checkpoint, with the tree and the leaves since the one before it."""

    tree: Tree
    leaves: Sequence[str]
    first: int
    note: str


@dataclass(frozen=True, slots=True)
class LogProofs(EventQueries):
    """The operation that proves the events of a call."""

    async def show_proofs(self, request: AdminRequest, _by: Administrator) -> AdminReply:
        """Return the events of a call with their proofs, checked with this gateway's key.

        Raises:
            UnknownEntryError: no event of the call is stored.
            OverloadedError: too many queries of events are running.

        """
        async with self._queried("call"):
            rows = await self._rows(_OF_CALL, call=request.name)
            if not rows:
                raise UnknownEntryError(
                    f"No event of the call '{request.name}' is stored. Events arrive a moment "
                    "after the call, and are deleted at the end of the retention."
                )
            key = await self._key()
            parts: dict[tuple[str, int], _Part | str] = {}
            found = [await self._proof(row, key, parts) for row in rows]
        shown = [EventProof(**each).model_dump() for each in found]
        return json_reply({"call": request.name, "key": key, "events": shown})

    async def _proof(
        self, row: Sequence[Any], key: str, parts: dict[tuple[str, int], _Part | str]
    ) -> dict[str, Any]:
        customer, stream, number, _, event, leaf = row
        shown = {"event": event, "customer": customer, "leaf_hash": _encoded(leaf)}
        known = parts.get((stream, number))
        if known is None:
            known = parts[stream, number] = await self._part(customer, stream, int(number))
        if isinstance(known, str):
            return {**shown, "reason": known}
        if leaf not in known.leaves:
            return {**shown, "reason": _MISSING}
        index = known.first + known.leaves.index(leaf)
        path = known.tree.path(index)
        proven = await asyncio.to_thread(_proven, bytes.fromhex(leaf), index, path, known.note, key)
        return {
            **shown, "index": index, "size": known.tree.size,
            "path": [b64encode(each).decode() for each in path], "checkpoint": known.note,
            "proven": proven, "reason": "" if proven else "The checkpoint does not match.",
        }  # fmt: skip

    async def _part(self, customer: str, stream: str, number: int) -> _Part | str:
        """Return the first checkpoint that contains a message, or why it cannot be used."""
        named = {"customer": customer, "stream": stream, "number": str(number)}
        later = await self._rows(_sorted("to >= {number:UInt64}", "ASC"), **named)
        if not later:
            return _WAITING
        before = await self._rows(_sorted("to < {number:UInt64}", "DESC"), **named)
        first, after, edge = (before[0] if before else (0, 0, ()))[:3]
        size, to, _, note = later[0]
        leaves: list[str] = []
        if int(size) - int(first) > MOST_LEAVES:
            return _MISSING
        while len(leaves) < int(size) - int(first):
            page = await self._rows(
                _LEAVES, customer=customer, stream=stream, after=str(after), to=str(to),
                skipped=str(len(leaves)),
            )  # fmt: skip
            leaves += [leaf for (leaf,) in page]
            if len(page) < PAGE:
                break
        if int(first) + len(leaves) != int(size):
            return _MISSING
        tree = Tree(int(first), list(map(b64decode, edge)), list(map(bytes.fromhex, leaves)))
        return _Part(tree, leaves, int(first), note)

    async def _key(self) -> str:
        """Return the public key of the log; empty if audit does not reply."""
        for status in await self.requests.request_all(wanted=("audit",)):
            if found := status.details.get("signed_by"):
                return str(found)
        return ""

    async def _rows(self, sql: str, **parameters: str) -> tuple[tuple[Any, ...], ...]:
        query = AuditQuery(sql=sql, parameters=parameters, limit=PAGE, as_stored=True)
        return (await self.requests.request(query, RowsReply, SECONDS)).rows


def _sorted(condition: str, order: str) -> str:
    return _CHECKPOINTS.replace("{condition}", condition).replace("{order}", order)


def _encoded(leaf: str) -> str:
    return b64encode(bytes.fromhex(leaf)).decode()


def _proven(leaf: bytes, index: int, path: list[bytes], note: str, key: str) -> bool:
    """Return whether the signed text of a checkpoint contains a leaf."""
    try:
        return proves(leaf, index, path, Checkpoint(note, Key(key)))
    except (MalformedError, UnreadableError):
        return False
