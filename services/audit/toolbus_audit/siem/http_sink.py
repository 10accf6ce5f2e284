"""HTTP transport: Splunk's HTTP Event Collector, Elasticsearch's bulk API, or JSON lines."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from toolbus_audit.siem.base import SinkError
from toolbus_audit.siem.formats import body_of, content_type, result_of
from toolbus_audit.siem.records import Record
from toolbus_common.config import Sink
from toolbus_common.egress.http_client import HttpClient
from toolbus_common.egress.http_messages import HttpError, HttpRequest, HttpResponse
from toolbus_common.secrets import SecretError, Secrets, filled

LARGEST_RESPONSE = 8 << 20
MAX_BYTES = 1 << 20  # of events in one POST, unless a single event is longer
MAX_REJECTIONS = 64  # POSTs of one attempt in which the sink accepted nothing
LONGEST_PAUSE = 300.0
_BAD_CONTENT = (400, 413, 422)  # the content was rejected, perhaps because of one event


@dataclass(slots=True)
class _Attempt:
    """Counts of one batch of events."""

    accepted: int = 0
    rejections: int = 0
    reason: str = ""


class HttpTransport:
    """Transport to a sink whose responses confirm delivery."""

    def __init__(
        self,
        sink: Sink,
        http: HttpClient,
        threads: Executor,
        secrets: Secrets,
        *,
        is_operator_named: Callable[[], bool],
        host: str,
    ) -> None:
        self._sink = sink
        self._http = http
        self._threads = threads
        self._is_operator_named = is_operator_named
        self._host = host
        self._secrets = secrets
        self._delivered = 0

    async def send(self, records: Sequence[Record]) -> list[Record]:
        """Send records and return the records that the sink rejects permanently.

        An event counts as rejected only if the sink accepted another event of the same batch. A
        sink that accepts no event is probably misconfigured, and the events are sent again later.
        Raises `SinkError`.
        """
        rejected: list[Record] = []
        attempt = _Attempt()
        for batch in _batches(records):
            rejected += await self._send_batch(batch, attempt)
        if rejected and not attempt.accepted:
            raise SinkError(f"{attempt.reason}; the collector rejects every event")
        return rejected

    def mark_sent(self, sequence: int) -> None:
        """Record the message as delivered, because the sink has confirmed it."""
        self._delivered = sequence

    def delivered_until(self) -> int:
        """Return the last message sent."""
        return self._delivered

    async def close(self) -> None:
        """Do nothing: no connection stays open between POSTs."""

    async def _send_batch(self, records: Sequence[Record], attempt: _Attempt) -> list[Record]:
        response = await self._post(records)
        if response.accepted:
            found = result_of(self._sink, records, response)
            if found.retry:
                raise SinkError(found.reason)
            attempt.accepted += len(records) - len(found.rejected)
            attempt.reason = attempt.reason or found.reason
            return list(found.rejected)
        reason = f"it returned status {response.status}"
        if response.status not in _BAD_CONTENT:
            raise SinkError(reason, _retry_delay(response.headers.get("retry-after", "")))
        attempt.rejections += 1
        attempt.reason = reason
        if attempt.rejections > MAX_REJECTIONS and not attempt.accepted:
            raise SinkError(f"{reason}; the collector rejects every event")
        if len(records) == 1:
            return list(records)
        half = len(records) // 2
        first = await self._send_batch(records[:half], attempt)
        return first + await self._send_batch(records[half:], attempt)

    async def _post(self, records: Sequence[Record]) -> HttpResponse:
        loop, configured = asyncio.get_running_loop(), self._sink.headers
        try:
            found = await self._secrets.read(configured.values())
            headers = {name: filled(value, found) for name, value in configured.items()}
            body = await loop.run_in_executor(
                self._threads, body_of, self._sink, records, self._host
            )
            return await self._http.send(
                HttpRequest(
                    "POST",
                    self._sink.url,
                    body,
                    {
                        "content-type": content_type(self._sink),
                        "user-agent": "toolbus",
                        **headers,
                    },
                    operator_named=self._is_operator_named(),
                    max_bytes=LARGEST_RESPONSE,
                    cut=True,
                )
            )
        except (HttpError, SecretError) as error:
            raise SinkError(str(error)) from error


def _batches(records: Sequence[Record]) -> list[list[Record]]:
    batches: list[list[Record]] = []
    size = MAX_BYTES
    for record in records:
        size += len(record.body)
        if size > MAX_BYTES or not batches:
            batches.append([])
            size = len(record.body)
        batches[-1].append(record)
    return batches


def _retry_delay(retry_after: str) -> float:
    return min(float(retry_after), LONGEST_PAUSE) if retry_after.isdecimal() else 0.0
