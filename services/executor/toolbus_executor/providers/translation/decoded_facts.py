"""Facts that a translation reads in what it decodes anyway, so that nothing is decoded twice."""

from math import ceil

from toolbus_common.contracts.model_calls import Usage
from toolbus_executor.providers.usage import (
    BYTES_PER_TOKEN,
    MAX_REASON,
    Facts,
    count_of,
    estimated_usage,
)


def reported_usage(reported: Usage) -> Usage | None:
    """Return the usage of reported counts, within their limits; None without any count."""
    total, made = count_of(reported.input), count_of(reported.output)
    if not (total or made):
        return None
    read = min(count_of(reported.cached), total)
    written = min(count_of(reported.cache_write), total - read)
    audio = min(count_of(reported.audio_input), total - read - written)
    thought = min(count_of(reported.reasoning), made)
    return Usage(
        input=total,
        cached=read,
        cache_write=written,
        output=made,
        reasoning=thought,
        audio_input=audio,
        image_input=min(count_of(reported.image_input), total - read - written - audio),
        audio_output=min(count_of(reported.audio_output), made - thought),
    )


class DecodedFacts:
    """The facts of a streamed response. Its translation notes them.

    `request_bytes` is the size of the request, to estimate the usage of a stream that ends early.
    """

    def __init__(self) -> None:
        self.request_bytes = 0
        self.facts = Facts()
        self.complete = False  # the provider's stream has no last event
        self._chunks = self._text_bytes = 0
        self._is_final = False  # the usage is complete

    def feed(self, part: bytes) -> bool:  # noqa: ARG002 - the form of `StreamFacts`
        """Return False: the translation reads the events."""
        return False

    @property
    def usage(self) -> Usage:
        """The reported usage; the estimate as long as the provider has not reported all of it."""
        known = self.facts.usage
        if known is not None and self._is_final:
            return known
        return estimated_usage(self.request_bytes, self._chunks, self._text_bytes, known)

    def note_text(self, text: str) -> None:
        """Count a part of the output."""
        self._chunks += 1
        self._text_bytes += len(text)

    def note_call(self) -> None:
        """Count a tool call that the model suggests."""
        self.facts.tools += 1

    def note_reason(self, reason: str) -> None:
        """Keep the provider's finish reason, if it is a plain word."""
        if reason.isascii() and reason.isprintable():
            self.facts.finish_reason = reason[:MAX_REASON]

    def note_usage(self, usage: Usage | None, *, is_final: bool) -> None:
        """Keep the last reported usage. `is_final` means that the response has ended."""
        if usage is not None:
            self.facts.usage = usage
            self._is_final = is_final


def text_estimate(request_bytes: int, response_bytes: int) -> Usage:
    """Return the estimate for a whole response without usage."""
    return estimated_usage(request_bytes, ceil(response_bytes / BYTES_PER_TOKEN), 0)
