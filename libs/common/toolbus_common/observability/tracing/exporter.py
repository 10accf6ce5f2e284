"""Export spans in batches from a separate thread: no call waits for a collector."""

import gzip
import http.client
import logging
import random
import ssl
from collections import deque
from dataclasses import dataclass
from threading import Event, Thread
from time import monotonic, sleep
from urllib.parse import SplitResult, urlsplit

from toolbus_common import VERSION
from toolbus_common.observability.metrics import SPANS
from toolbus_common.observability.tracing import otlp_encoding as otlp
from toolbus_common.observability.tracing.context import Span
from toolbus_common.observability.tracing.otel_env import Exporting

log = logging.getLogger(__name__)

ATTEMPTS = 5
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
LAST_SECONDS = 3.0  # for a process that ends
LARGEST_RESPONSE = 64 * 1024
_OK = range(200, 300)
_RETRYABLE = (429, 502, 503, 504)  # https://opentelemetry.io/docs/specs/otlp/, retryable


@dataclass(frozen=True, slots=True)
class Attempt:
    """The outcome of one attempt: a reason if it failed, and whether and when to retry."""

    reason: str = ""
    retry: bool = False
    after: float = 0.0


class Exporter:
    """Queues ended spans up to a maximum; further ones are dropped and counted."""

    def __init__(self, options: Exporting) -> None:
        self._options = options
        self._target = urlsplit(options.endpoint)
        self._waiting: deque[Span] = deque()
        self._wake, self._stop = Event(), Event()
        self._until = 0.0  # deadline of a process that ends
        self._tls = _tls(self._target, options.ca)
        self._resources: dict[str, dict[str, str]] = {}
        self._thread = Thread(target=self._run, name="toolbus-traces", daemon=True)
        self._exported, self._dropped, self._failed = (
            SPANS.labels(outcome) for outcome in ("exported", "dropped", "failed")
        )

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Send what is left for at most `LAST_SECONDS`."""
        self._until = monotonic() + LAST_SECONDS
        self._stop.set()
        self._wake.set()
        self._thread.join(LAST_SECONDS + 1)

    def take(self, span: Span) -> None:
        """Queue an ended span for its batch."""
        if len(self._waiting) >= self._options.most_waiting:
            self._dropped.inc()
            return
        self._waiting.append(span)
        if len(self._waiting) >= self._options.most_sent:
            self._wake.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(self._options.delay)
            self._wake.clear()
            self._send_all()
        self._send_all()

    def _send_all(self) -> None:
        while self._waiting:
            most = min(len(self._waiting), self._options.most_sent)
            spans = [self._waiting.popleft() for _ in range(most)]
            try:
                reason = self._sent(self._encoded(spans))
            except Exception as error:  # one bad batch must not end the thread
                log.exception("traces.failed")
                reason = type(error).__name__
            (self._failed if reason else self._exported).inc(len(spans))
            if reason:
                log.warning("traces.not_sent", extra={"spans": len(spans), "reason": reason})

    def _encoded(self, spans: list[Span]) -> bytes:
        """Encode the batch, releasing the interpreter lock between two spans."""
        by_service: dict[str, list[bytes]] = {}
        for span in spans:
            by_service.setdefault(span.service, []).append(otlp.encoded(span))
            sleep(0)
        body = b"".join(
            otlp.resource_spans(self._resource(service), service, encoded, VERSION)
            for service, encoded in by_service.items()
        )
        return gzip.compress(body, 1) if self._options.gzip else body

    def _resource(self, service: str) -> dict[str, str]:
        if service not in self._resources:
            self._resources[service] = self._options.resource_of(service)
        return self._resources[service]

    def _sent(self, body: bytes) -> str:
        """Send with retries; return the reason of a final failure, else an empty text."""
        pause, attempt = FIRST_PAUSE, Attempt()
        for number in range(1, ATTEMPTS + 1):
            attempt = self._post(body)
            if not attempt.retry or number == ATTEMPTS:
                break
            wait = min(LONGEST_PAUSE, max(attempt.after, pause * random.uniform(0.5, 1.5)))  # noqa: S311
            if self._stop.wait(wait) and monotonic() > self._until:
                break
            pause *= 2
        return attempt.reason

    def _post(self, body: bytes) -> Attempt:
        connection = self._connection()
        try:
            target = self._target
            path = f"{target.path or '/'}?{target.query}" if target.query else target.path or "/"
            connection.request("POST", path, body, self._headers())
            response = connection.getresponse()
            response.read(LARGEST_RESPONSE)
        except (OSError, http.client.HTTPException) as error:
            return Attempt(f"the collector cannot be reached: {error}", retry=True)
        finally:
            connection.close()
        if response.status in _OK:
            return Attempt()
        reason = f"the collector replied HTTP {response.status}"
        return Attempt(
            reason, response.status in _RETRYABLE, _seconds(response.getheader("retry-after"))
        )

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._target.hostname or "", self._target.port
        left = self._until - monotonic() if self._stop.is_set() else self._options.timeout
        timeout = max(0.1, min(left, self._options.timeout))
        if self._tls is None:
            return http.client.HTTPConnection(host, port, timeout=timeout)
        return http.client.HTTPSConnection(host, port, timeout=timeout, context=self._tls)

    def _headers(self) -> dict[str, str]:
        own = {"Content-Type": "application/x-protobuf", "User-Agent": f"toolbus/{VERSION}"}
        if self._options.gzip:
            own["Content-Encoding"] = "gzip"
        return {**self._options.headers, **own}


def _tls(target: SplitResult, ca: str) -> ssl.SSLContext | None:
    if target.scheme != "https":
        return None
    context = ssl.create_default_context()
    if ca:
        context.load_verify_locations(ca)
    return context


def _seconds(header: str | None) -> float:
    return float(header) if header and header.isdecimal() else 0.0
