"""Events in POSTs: to Splunk's collector, to Elasticsearch's bulk API, or as lines to anybody."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from toolbus_audit.delivery.http_client import HttpResponse, Poster, PostError, Request
from toolbus_audit.siem.base import SinkError
from toolbus_audit.siem.formats import body_of, media_of, verdict
from toolbus_audit.siem.records import Record
from toolbus_common.config import Sink
from toolbus_common.secrets import SecretError, Secrets, filled

LARGEST_ANSWER = 8 << 20
MOST_BYTES = 1 << 20  # of events in one POST, but for one that is longer alone
MOST_REFUSALS = 64  # of one attempt in which nothing was taken
LONGEST_PAUSE = 300.0
_UNFIT = (400, 413, 422)  # what was posted does not fit: some event in it may be to blame


@dataclass(slots=True)
class _Attempt:
    """What became of the events of one batch."""

    taken: int = 0
    refusals: int = 0
    why: str = ""


class HttpOutlet:
    """One sink that answers, so that what it took is known at once."""

    def __init__(
        self,
        sink: Sink,
        poster: Poster,
        threads: Executor,
        secrets: Secrets,
        *,
        named: Callable[[], bool],
        host: str,
    ) -> None:
        self._sink = sink
        self._poster = poster
        self._threads = threads
        self._named = named
        self._host = host
        self._secrets = secrets
        self._taken = 0

    async def send(self, records: Sequence[Record]) -> list[Record]:
        """Tell of these; which of them it refuses for good.

        An event is given up only where the sink took another one of the same batch: a sink that
        takes none is not set up rightly, and events wait for that. Raises `SinkError`.
        """
        refused: list[Record] = []
        attempt = _Attempt()
        for batch in _batches(records):
            refused += await self._told(batch, attempt)
        if refused and not attempt.taken:
            raise SinkError(f"{attempt.why}; it takes none of the events")
        return refused

    def sent(self, sequence: int) -> None:
        """What was sent was taken."""
        self._taken = sequence

    def taken(self) -> int:
        """The last message sent."""
        return self._taken

    async def close(self) -> None:
        """Nothing is held open between POSTs."""

    async def _told(self, records: Sequence[Record], attempt: _Attempt) -> list[Record]:
        answered = await self._posted(records)
        if answered.good:
            found = verdict(self._sink, records, answered)
            if found.again:
                raise SinkError(found.why)
            attempt.taken += len(records) - len(found.refused)
            attempt.why = attempt.why or found.why
            return list(found.refused)
        why = f"it answered {answered.status}"
        if answered.status not in _UNFIT:
            raise SinkError(why, _pause(answered.retry_after))
        attempt.refusals += 1
        attempt.why = why
        if attempt.refusals > MOST_REFUSALS and not attempt.taken:
            raise SinkError(f"{why}; it takes none of the events")
        if len(records) == 1:
            return list(records)
        half = len(records) // 2
        first = await self._told(records[:half], attempt)
        return first + await self._told(records[half:], attempt)

    async def _posted(self, records: Sequence[Record]) -> HttpResponse:
        loop, told = asyncio.get_running_loop(), self._sink.headers
        try:
            found = await self._secrets.read(told.values())
            headers = {name: filled(value, found) for name, value in told.items()}
            return await loop.run_in_executor(self._threads, self._post, records, headers)
        except (PostError, SecretError) as error:
            raise SinkError(str(error)) from error

    def _post(self, records: Sequence[Record], told: Mapping[str, str]) -> HttpResponse:
        headers = {"content-type": media_of(self._sink), "user-agent": "toolbus", **told}
        body = body_of(self._sink, records, self._host)
        request = Request("POST", self._sink.url, body, headers)
        return self._poster.ask(request, named=self._named(), largest=LARGEST_ANSWER)


def _batches(records: Sequence[Record]) -> list[list[Record]]:
    batches: list[list[Record]] = []
    size = MOST_BYTES
    for record in records:
        size += len(record.body)
        if size > MOST_BYTES or not batches:
            batches.append([])
            size = len(record.body)
        batches[-1].append(record)
    return batches


def _pause(retry_after: str) -> float:
    return min(float(retry_after), LONGEST_PAUSE) if retry_after.isdecimal() else 0.0
