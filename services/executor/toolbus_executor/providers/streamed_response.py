"""Streamed response of a provider: forwarded as it arrives, and read for its usage."""

import asyncio
import logging
import re
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from time import monotonic, perf_counter, time

from toolbus_common.config.models.response_cache import MAX_CACHED
from toolbus_common.contracts import Notification
from toolbus_common.contracts.model_calls import CHUNK
from toolbus_common.contracts.replies import CallContext
from toolbus_common.errors import ToolbusError, UpstreamInvalidError
from toolbus_common.model_api.event_stream import EventSplitter
from toolbus_executor.known_secrets import KnownSecrets
from toolbus_executor.providers.endpoints.aws_events import AwsEvents
from toolbus_executor.providers.provider_errors import stream_failure
from toolbus_executor.providers.translation.base import StreamTranslation
from toolbus_executor.providers.translation.decoded_facts import DecodedFacts
from toolbus_executor.providers.translation.sent_errors import error_of
from toolbus_executor.providers.usage import StreamFacts, is_usage_only
from toolbus_executor.results.large.spill_registry import MessageSpill
from toolbus_executor.transport.sse_parser import EventReader

log = logging.getLogger(__name__)

LARGEST_EVENT = 6 * 1024 * 1024  # bytes; with one more network read it fits into a message
LARGEST_STREAM = 256 * 1024 * 1024  # bytes
MAX_UNSENT = 1024 * 1024  # bytes; above it no more is read from the provider
_DONE = b"[DONE]"
_ENDS = re.compile(rb"(?<=\n\n)|(?<=\r\n\r\n)")


class StreamedResponse(MessageSpill):
    """Receiver of the event stream of one request. It sends complete events to the caller.

    Each network read is forwarded at once, without the beginning of an incomplete event. So a
    stream that breaks never ends within an event. `timeout` is the longest time in seconds without
    a part, and `deadline` is the end of the whole call in seconds since the epoch.
    """

    def __init__(
        self,
        context: CallContext,
        facts: StreamFacts | DecodedFacts,
        timeout: float,
        deadline: float,
    ) -> None:
        self.facts = facts
        self.drops_usage = False  # the client did not request the usage of its chat stream
        self.translation: StreamTranslation | None = None
        self.secrets = KnownSecrets()  # that the provider's errors must not contain
        self.framing: AwsEvents | None = None  # of a stream that is not in server-sent events
        self.began = False  # the head of the stream was received
        self.first_at = 0.0  # `perf_counter` at the first complete event
        self.size = 0  # bytes
        self.copy: list[bytes] | None = None  # what was sent, for the cache; None if too large
        self._copied = 0  # bytes
        self.parts = 0  # parts sent to the caller, each with its number
        self._context = context
        self._timeout = timeout
        self._deadline = deadline
        self._last_at = monotonic()
        self._splitter = EventSplitter()
        self._unsent: deque[bytes] = deque()
        self._unsent_bytes = 0
        self._paused = False
        self._sender: asyncio.Task[None] | None = None
        self._events: EventReader | None = None
        self._has_data = False  # an event with data was received; others are comments

    def __call__(self, piece: bytes) -> bool:
        """Accept a piece of the stream, and return whether the stream is complete.

        Raises:
            UpstreamInvalidError: an event or the stream is too large.
            ToolbusError: the provider sent an error, see `_translated`, or a guard rejects a part.

        """
        self._last_at = monotonic()
        if not piece:
            self.began = True
            return False
        self.size += len(piece)
        if self.size > LARGEST_STREAM:
            raise UpstreamInvalidError(
                f"The upstream's stream exceeds {LARGEST_STREAM} bytes. Request a shorter response."
            )
        if self.framing is not None:
            self._forward_framed(self.framing, piece)
        elif part := self._complete_events(piece):
            self._forward(part)
        return self.facts.complete

    @property
    def has_ended(self) -> bool:
        """Whether the last event was received, or the finish reason of a stream without one."""
        facts = self.facts
        return facts.complete or (
            isinstance(facts, DecodedFacts) and bool(facts.facts.finish_reason)
        )

    def left(self) -> float:
        """Return the seconds until the stream must continue; 0 or less after the deadline."""
        if self._paused:  # the caller reads slowly
            return self._deadline - time()
        return min(self._last_at + self._timeout - monotonic(), self._deadline - time())

    def release(self) -> None:
        """Detach from the connection, which can be used for another request now."""
        flow, self.flow = self.flow, None
        if self._paused and flow is not None:
            self._paused = False
            flow(True)  # noqa: FBT003 - as in asyncio's flow control

    async def finish(self) -> None:
        """Send the rest of the stream, after its last piece. Raises as `_translated`."""
        rest = self._splitter.take_rest()
        if rest.strip():
            self._forward(rest + b"\n\n")
        if self.translation is not None:
            self._translated(self.translation, [self.translation.end])
        await self.flush()

    async def flush(self) -> None:
        """Wait until all complete events are sent."""
        if self._sender is not None:
            await asyncio.shield(self._sender)

    def discard(self) -> None:
        """Send nothing more, because the caller has cancelled the call."""
        if self._sender is not None:
            self._sender.cancel()

    def _complete_events(self, piece: bytes) -> bytes:
        part = self._splitter.feed(piece)
        if len(self._splitter.rest) > LARGEST_EVENT:
            raise UpstreamInvalidError(
                f"The upstream's event exceeds {LARGEST_EVENT} bytes. Request a shorter response."
            )
        return part

    def _forward(self, part: bytes) -> None:
        """Read complete events, and send them in the form of the client's API."""
        if not self.first_at:
            self.first_at = perf_counter()
        has_facts = self.facts.feed(part)
        if self.translation is not None:
            self._in_client_form(part, self.translation)
            return
        if not self._has_data:
            self._check_first(part)
        if has_facts and self.drops_usage:
            part = _without_usage(part)
        self._send(part)

    def _check_first(self, part: bytes) -> None:
        """Raise `ToolbusError` if the first event with data is an error instead of a response."""
        first = next((line for line in part.splitlines() if line.startswith(b"data:")), b"")
        self._has_data = bool(first)
        if b'"error"' in first and (error := error_of(first.removeprefix(b"data:"))) is not None:
            is_partial = self.parts > 0 or bool(self._unsent)
            raise stream_failure(error, self.secrets, is_partial=is_partial)

    def _forward_framed(self, framing: AwsEvents, piece: bytes) -> None:
        """Translate the complete events of a stream in another form."""
        assert self.translation is not None  # noqa: S101 - no client reads this form
        feed = self.translation.feed
        events = (partial(feed, name, data) for name, data in framing.feed(piece))
        if self._translated(self.translation, events) and not self.first_at:
            self.first_at = perf_counter()

    def _in_client_form(self, part: bytes, translation: StreamTranslation) -> None:
        reader = self._events = self._events or EventReader()
        events = (
            partial(translation.feed, reader.name, data)
            for data in reader.feed(part)
            if data != _DONE
        )
        self._translated(translation, events)

    def _translated(
        self, translation: StreamTranslation, events: Iterable[Callable[[], bytes]]
    ) -> bool:
        """Send translated events, and return whether there was any.

        The event that reports a failure is not sent: the receiver of this call sends the error that
        is raised, or tries another target if nothing was sent.

        Raises `ToolbusError` if the response failed.
        """
        parts: list[bytes] = []
        for event in events:
            part = _checked(event)
            if translation.failure is not None:
                self._send(b"".join(parts))
                is_partial = self.parts > 0 or bool(self._unsent)
                raise stream_failure(translation.failure, self.secrets, is_partial=is_partial)
            parts.append(part)
        made = b"".join(parts)
        self._send(made)
        return bool(made)

    def _send(self, part: bytes) -> None:
        if not part:
            return
        if self.copy is not None:
            self._copied += len(part)
            self.copy.append(part)
            if self._copied > MAX_CACHED:
                self.copy = None
        self._unsent.append(part)
        self._unsent_bytes += len(part)
        if self._unsent_bytes > MAX_UNSENT and not self._paused and self.flow is not None:
            self._paused = True
            self.flow(False)  # noqa: FBT003 - as in asyncio's flow control
        if self._sender is None or self._sender.done():
            if self._sender is not None:
                self._sender.result()  # raises the error of a guard
            self._sender = asyncio.ensure_future(self._send_all())

    async def _send_all(self) -> None:
        while self._unsent:
            part = self._unsent.popleft()
            self.parts += 1
            await self._context.send(Notification(CHUNK, part, self.parts))
            self._unsent_bytes -= len(part)
        if self._paused and self.flow is not None:
            self._paused = False
            self._last_at = monotonic()
            self.flow(True)  # noqa: FBT003 - as in asyncio's flow control


def _without_usage(part: bytes) -> bytes:
    """Return the events without those that contain only the usage of a chat stream."""
    events = _ENDS.split(part)
    return b"".join(
        event
        for event in events
        if b'"usage"' not in event or not is_usage_only(event.strip().removeprefix(b"data:"))
    )


def _checked(translate: Callable[[], bytes]) -> bytes:
    """Return the result of a translation, and convert unexpected errors.

    Without the conversion, such an error would look like a lost connection.

    Raises:
        UpstreamInvalidError: the event cannot be translated.

    """
    try:
        return translate()
    except ToolbusError:
        raise
    except Exception as error:
        log.exception("model.translation_failed")
        raise UpstreamInvalidError(
            "An event of the upstream could not be translated. The executor log has the details."
        ) from error
