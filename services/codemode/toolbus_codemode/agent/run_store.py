"""The runs in their bucket: each has one writer at a time, which the bucket enforces."""

import re
from time import time

from toolbus_codemode.agent.run_record import (
    LARGEST_RECORD,
    RunRecord,
    decode_record,
    entry_name,
    owner_of,
)
from toolbus_common.errors import (
    CallInProgressError,
    ConflictError,
    InvalidError,
    UnknownEntryError,
)
from toolbus_common.nats.kv_bucket import Bucket

_RUN = re.compile(r"[0-9a-f]{1,64}")


class RunEntry:
    """The entry of one run, as its writer knows it."""

    def __init__(self, bucket: Bucket, record: RunRecord, revision: int) -> None:
        self.record = record
        self.revision = revision
        self._bucket = bucket

    async def save(self) -> None:
        """Write the record.

        Raises:
            CallInProgressError: another request continues this run.
            InvalidError: the record is too large.
            BusDownError: it is unknown whether the record was written.

        """
        self.record.updated = time()
        body = self.record.encode()
        if len(body) > LARGEST_RECORD:
            raise InvalidError(
                f"The state of run '{self.record.run}' exceeds {LARGEST_RECORD >> 20} MiB. Start a "
                "new run, with tools that return less."
            )
        name = entry_name(self.record.principal, self.record.run)
        revision = await self._bucket.swap(name, body, self.revision)
        if revision is None:
            raise CallInProgressError(
                f"Another request continues run '{self.record.run}' or has cancelled it, so this "
                "one has ended."
            )
        self.revision = revision


class RunStore:
    """All runs. A run of another principal looks unknown."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def new(self, record: RunRecord) -> RunEntry:
        """Return the entry of a new run, which is not yet written."""
        return RunEntry(self._bucket, record, 0)

    async def find(self, principal: str, run: str) -> RunEntry | None:
        """Return a run of a principal; None if it does not exist. Raises `BusDownError`."""
        if not _RUN.fullmatch(run):
            return None
        found = await self._bucket.get(entry_name(principal, run))
        if found is None or found.value is None:
            return None
        record = decode_record(found.value)
        return RunEntry(self._bucket, record, found.revision) if record.run == run else None

    async def get(self, principal: str, run: str) -> RunEntry:
        """Return a run of a principal. Raises `UnknownEntryError` or `BusDownError`."""
        found = await self.find(principal, run)
        if found is None:
            raise unknown_run(run)
        return found

    async def of_anyone(self, run: str) -> RunEntry:
        """Return a run, for an operator. Raises `UnknownEntryError` or `BusDownError`."""
        if _RUN.fullmatch(run):
            for change in await self._bucket.present(f"*.{run}"):
                if change.value is not None:
                    return RunEntry(self._bucket, decode_record(change.value), change.revision)
        raise unknown_run(run)

    async def list(
        self, principal: str | None, limit: int, after: str
    ) -> tuple[list[RunRecord], bool]:
        """Return a page of runs, the newest first, and whether there are older ones.

        `principal` is None for the runs of all principals. Raises `BusDownError`.
        """
        pattern = ">" if principal is None else f"{owner_of(principal)}.*"
        found = [
            decode_record(change.value)
            for change in await self._bucket.present(pattern)
            if change.value is not None
        ]
        found.sort(key=lambda each: (each.started, each.run), reverse=True)
        if after:
            at = next((n for n, each in enumerate(found, 1) if each.run == after), None)
            if at is None:
                raise unknown_run(after)
            found = found[at:]
        return found[:limit], len(found) > limit


def unknown_run(run: str) -> UnknownEntryError:
    """Return the error for a run that does not exist or belongs to another principal."""
    return UnknownEntryError(
        f"Unknown run: '{run[:64]}'. A run is stored for a day after its last step; GET "
        "/v1/agent/runs lists yours."
    )


def closed_run(run: str) -> ConflictError:
    """Return the error for a run that was cancelled."""
    return ConflictError(
        f"The run '{run}' was cancelled, so it cannot be continued. Start another."
    )
