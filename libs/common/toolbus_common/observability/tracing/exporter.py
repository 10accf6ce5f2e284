"""Sends spans off in batches, from a thread of its own: no call waits for a collector."""

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
LAST_SECONDS = 3.0  # what is left of a process that ends
LARGEST_ANSWER = 64 * 1024
_OK = range(200, 300)
_COME_BACK = (429, 502, 503, 504)  # https://opentelemetry.io/docs/specs/otlp/, retryable


@dataclass(frozen=True, slots=True)
class Sent:
    """How one attempt went: nothing wrong, or a reason, and whether and when to come back."""

    reason: str = ""
    again: bool = False
    after: float = 0.0


class Exporter:
    """Takes ended spans, at most so many at a time; the rest is dropped and counted."""

    def __init__(self, told: Exporting) -> None:
        self._told = told
        self._target = urlsplit(told.endpoint)
        self._waiting: deque[Span] = deque()
        self._wake, self._stop = Event(), Event()
        self._until = 0.0  # when a process that ends waits no longer
        self._tls = _tls(self._target, told.ca)
        self._resources: dict[str, dict[str, str]] = {}
        self._thread = Thread(target=self._run, name="toolbus-traces", daemon=True)
        self._exported, self._dropped, self._failed = (
            SPANS.labels(outcome) for outcome in ("exported", "dropped", "failed")
        )

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def close(self) -> None:
        """Send what is left, but not for long."""
        self._until = monotonic() + LAST_SECONDS
        self._stop.set()
        self._wake.set()
        self._thread.join(LAST_SECONDS + 1)

    def take(self, span: Span) -> None:
        """Have an ended span wait for its batch."""
        if len(self._waiting) >= self._told.most_waiting:
            self._dropped.inc()
            return
        self._waiting.append(span)
        if len(self._waiting) >= self._told.most_sent:
            self._wake.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(self._told.delay)
            self._wake.clear()
            self._send_all()
        self._send_all()

    def _send_all(self) -> None:
        while self._waiting:
            most = min(len(self._waiting), self._told.most_sent)
            spans = [self._waiting.popleft() for _ in range(most)]
            try:
                reason = self._sent(self._encoded(spans))
            except Exception as error:  # the thread must go on whatever one batch holds
                log.exception("traces.failed")
                reason = type(error).__name__
            (self._failed if reason else self._exported).inc(len(spans))
            if reason:
                log.warning("traces.not_sent", extra={"spans": len(spans), "reason": reason})

    def _encoded(self, spans: list[Span]) -> bytes:
        """The batch. Between two spans whoever serves calls may have the interpreter."""
        by_service: dict[str, list[bytes]] = {}
        for span in spans:
            by_service.setdefault(span.service, []).append(otlp.encoded(span))
            sleep(0)
        body = b"".join(
            otlp.resource_spans(self._resource(service), service, told, VERSION)
            for service, told in by_service.items()
        )
        return gzip.compress(body, 1) if self._told.gzip else body

    def _resource(self, service: str) -> dict[str, str]:
        if service not in self._resources:
            self._resources[service] = self._told.resource_of(service)
        return self._resources[service]

    def _sent(self, body: bytes) -> str:
        """Send, and again where that may help; why it was given up, if it was."""
        pause, sent = FIRST_PAUSE, Sent()
        for attempt in range(1, ATTEMPTS + 1):
            sent = self._post(body)
            if not sent.again or attempt == ATTEMPTS:
                break
            wait = min(LONGEST_PAUSE, max(sent.after, pause * random.uniform(0.5, 1.5)))  # noqa: S311
            if self._stop.wait(wait) and monotonic() > self._until:
                break
            pause *= 2
        return sent.reason

    def _post(self, body: bytes) -> Sent:
        connection = self._connection()
        try:
            target = self._target
            path = f"{target.path or '/'}?{target.query}" if target.query else target.path or "/"
            connection.request("POST", path, body, self._headers())
            answer = connection.getresponse()
            answer.read(LARGEST_ANSWER)
        except (OSError, http.client.HTTPException) as error:
            return Sent(f"the collector cannot be reached: {error}", again=True)
        finally:
            connection.close()
        if answer.status in _OK:
            return Sent()
        reason = f"the collector answered HTTP {answer.status}"
        return Sent(reason, answer.status in _COME_BACK, _seconds(answer.getheader("retry-after")))

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._target.hostname or "", self._target.port
        left = self._until - monotonic() if self._stop.is_set() else self._told.timeout
        timeout = max(0.1, min(left, self._told.timeout))
        if self._tls is None:
            return http.client.HTTPConnection(host, port, timeout=timeout)
        return http.client.HTTPSConnection(host, port, timeout=timeout, context=self._tls)

    def _headers(self) -> dict[str, str]:
        own = {"Content-Type": "application/x-protobuf", "User-Agent": f"toolbus/{VERSION}"}
        if self._told.gzip:
            own["Content-Encoding"] = "gzip"
        return {**self._told.headers, **own}


def _tls(target: SplitResult, ca: str) -> ssl.SSLContext | None:
    if target.scheme != "https":
        return None
    context = ssl.create_default_context()
    if ca:
        context.load_verify_locations(ca)
    return context


def _seconds(told: str | None) -> float:
    return float(told) if told and told.isdecimal() else 0.0
