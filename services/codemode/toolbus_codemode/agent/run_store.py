"""The runs in their bucket: each has one writer at a time, which the bucket enforces."""

import re
from heapq import nlargest
from time import time

from toolbus_codemode.agent.run_quota import RunQuota
from toolbus_codemode.agent.run_record import (
    LARGEST_CONTENT,
    LONGEST_REASON,
    RunRecord,
    content_name,
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
    """The two entries of one run, as its writer knows them: metadata and content.

    `content` is the revision of the content; None if it was not read, so it is not written.
    """

    def __init__(
        self, bucket: Bucket, record: RunRecord, revision: int, content: int | None = None
    ) -> None:
        self.record = record
        self.revision = revision
        self.content = content
        self._bucket = bucket

    async def save(self) -> None:
        """Write the content, then the metadata, which therefore describes no step without content.

        Raises:
            CallInProgressError: another request continues this run.
            InvalidError: the content is too large.
            BusDownError: it is unknown whether the run was written.

        """
        record = self.record
        record.updated, record.reason = time(), record.reason[:LONGEST_REASON]
        if self.content is not None:
            if len(record.sealed) > LARGEST_CONTENT:
                raise InvalidError(
                    f"The state of run '{record.run}' exceeds {LARGEST_CONTENT >> 20} MiB. Start a "
                    "new run, with tools that return less."
                )
            name = content_name(record.principal, record.run)
            self.content = await self._swap(name, record.sealed.encode(), self.content)
        name = entry_name(record.principal, record.run)
        self.revision = await self._swap(name, record.encode(), self.revision)

    async def _swap(self, name: str, body: bytes, last: int) -> int:
        revision = await self._bucket.swap(name, body, last)
        if revision is None:
            raise CallInProgressError(
                f"Another request continues run '{self.record.run}' or has cancelled it, so this "
                "one has ended."
            )
        return revision


class RunStore:
    """All runs. A run of another principal looks unknown."""

    def __init__(self, bucket: Bucket, quota: RunQuota) -> None:
        self._bucket = bucket
        self._quota = quota

    def new(self, record: RunRecord) -> RunEntry:
        """Return the entry of a new run, which is not yet written.

        Raises:
            RateExceededError: the principal has stored too much.
            OverloadedError: all principals together have stored too much.

        """
        self._quota.check(owner_of(record.principal), record.key)
        return RunEntry(self._bucket, record, 0, 0)

    async def find(self, principal: str, run: str, *, whole: bool = True) -> RunEntry | None:
        """Return a run of a principal; None if it does not exist. Raises `BusDownError`.

        `whole` includes its content.
        """
        if not _RUN.fullmatch(run):
            return None
        found = await self._bucket.get(entry_name(principal, run))
        if found is None or found.value is None:
            return None
        record = decode_record(found.value)
        if record.run != run:
            return None
        if not whole:
            return RunEntry(self._bucket, record, found.revision)
        content = await self._bucket.get(content_name(principal, run))
        if content is None:
            return RunEntry(self._bucket, record, found.revision, 0)
        record.sealed = (content.value or b"").decode()
        return RunEntry(self._bucket, record, found.revision, content.revision)

    async def get(self, principal: str, run: str, *, whole: bool = True) -> RunEntry:
        """Return a run of a principal. Raises `UnknownEntryError` or `BusDownError`."""
        found = await self.find(principal, run, whole=whole)
        if found is None:
            raise unknown_run(run)
        return found

    async def of_anyone(self, run: str) -> RunEntry:
        """Return a run without its content, for an operator.

        Raises `UnknownEntryError` or `BusDownError`.
        """
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
        end = None
        if after:
            found = (
                self.of_anyone(after)
                if principal is None
                else self.get(principal, after, whole=False)
            )
            end = _age((await found).record)
        newest: dict[str, RunRecord] = {}
        async for changes in self._bucket.batches(f"{owner_of(principal) if principal else '*'}.*"):
            for change in changes:
                if change.value is None:
                    continue
                record = decode_record(change.value)
                if end is None or _age(record) < end:
                    record.steps.clear()
                    newest[record.run] = record
            if len(newest) > limit:
                kept = nlargest(limit + 1, newest.values(), key=_age)
                newest = {each.run: each for each in kept}
        page = sorted(newest.values(), key=_age, reverse=True)
        return page[:limit], len(page) > limit


def _age(record: RunRecord) -> tuple[float, str]:
    return record.started, record.run


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
