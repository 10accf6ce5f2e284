"""The check of one text of a stream by each guard in turn, while the text arrives."""

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any, Protocol

import msgspec

from toolbus_common.config.guards.guard import Guard
from toolbus_common.contracts import GuardCheck
from toolbus_common.errors import GuardFailedError
from toolbus_common.guards.detectors import detector_of, is_compiled
from toolbus_common.guards.inspector import LARGE
from toolbus_common.guards.messages import failed_reason
from toolbus_common.guards.redaction import without_placeholders
from toolbus_executor.guards.call_guards import GuardedContent
from toolbus_executor.guards.streams.held_text import HeldText, Match

SEGMENT = 2000  # characters that a guard of another service checks at a time
MAX_HELD = 4 << 20  # characters of one text that wait for a check

_encode = msgspec.json.Encoder().encode


class Stage(Protocol):
    """The check of one text by one guard."""

    async def feed(self, text: str) -> str:
        """Accept a piece, and return what was checked. Raises the error of the guard."""
        ...

    async def end(self) -> str:
        """Return the rest, which was checked. Raises the error of the guard."""
        ...


class GuardedText:
    """One text of a stream. Each guard checks the text that the guard before it returns."""

    def __init__(self, content: GuardedContent) -> None:
        self._stages = [_stage_of(content, name) for name in content.names]

    async def feed(self, text: str) -> str:
        """Accept a piece, and return what all guards have checked. Raises the error of a guard."""
        for stage in self._stages:
            text = await stage.feed(text)
            if not text:
                break
        return text

    async def end(self) -> str:
        """Return the rest, which all guards have checked. Raises the error of a guard."""
        text = ""
        for stage in self._stages:
            before = await stage.feed(text) if text else ""
            text = before + await stage.end()
        return text


class _Found(Exception):  # noqa: N818 - it ends a search
    """A guard rejects the text that was searched."""


class _SearchedText:
    """The search of a text by a built-in guard, with a bounded part delayed."""

    def __init__(self, content: GuardedContent, name: str, guard: Guard) -> None:
        self._content = content
        self._name = name
        self._guard = guard
        self._held = HeldText(self._matches)
        self._size = 0  # bytes that were not recorded yet, and the seconds of their check
        self._seconds = 0.0
        self._is_recorded = False
        self._rejected = ""
        self._stored: dict[str, str] = {}

    async def feed(self, text: str) -> str:
        """Accept a piece, and return what was searched."""
        return await self._searched(lambda: self._held.feed(text), text)

    async def end(self) -> str:
        """Return the rest."""
        rest = await self._searched(self._held.end, "")
        self._record()
        self._size, self._seconds = 0, 0.0
        return rest

    async def _searched(self, search: Callable[[], str], text: str) -> str:
        if not is_compiled(self._guard):
            await asyncio.to_thread(detector_of, self._guard)
        began = perf_counter()
        if not self._is_recorded:
            self._is_recorded = True
            self._record()
        self._size += len(text.encode("utf-8", "replace"))
        try:
            found = search() if len(text) < LARGE else await asyncio.to_thread(search)
        except _Found:
            await self._reject()
            raise
        except Exception as error:  # noqa: BLE001 - an error of a detector can contain the text
            return self._failed(f"it had an internal error ({type(error).__name__})")
        self._seconds += perf_counter() - began
        if self._stored:
            stored, self._stored = self._stored, {}
            checked = self._content.checked
            await self._content.guards.placeholders.store(
                checked.principal_id, checked.run, self._name, stored
            )
        return found

    def _matches(self, window: str) -> list[Match]:
        """Return the matches in the searched text. Raises `_Found` if the guard rejects it."""
        guard, checked = self._guard, self._content.checked
        detector = detector_of(guard)
        findings = without_placeholders(
            [window],
            [each for each in detector.find([window]) if each.score >= guard.min_score],
        )
        redacts = guard.action == "redact" and guard.mode == "enforce"
        matches = []
        for each in findings:
            replacement = None
            if redacts:
                value = window[each.start : each.end]
                replacement = self._content.guards.placeholders.text_of(
                    checked.principal_id, checked.run, each.rule, value
                )
                if guard.restore:
                    self._stored[replacement] = value
            matches.append(Match(each.start, each.end, replacement))
        if findings and not redacts:
            self._rejected = window
            if guard.mode == "enforce" and guard.action in ("block", "ask"):
                raise _Found
        if findings:
            rules = tuple(sorted({each.rule for each in findings}))
            score = max(each.score for each in findings)
            self._note(rules, score, detector.version)
        return matches

    async def _reject(self) -> None:
        """Raise the error of the guard about the text that was searched."""
        await self._content.cleaned(_encode([self._rejected]), (self._name,))

    def _note(self, rules: tuple[str, ...], score: float, version: str) -> None:
        action = self._guard.action
        effect = {"redact": "redacted", "block": "blocked", "ask": "blocked"}.get(action, "flagged")
        would = {"redacted": "would_redact", "blocked": "would_block"}
        verdict: Any = effect if self._guard.mode == "enforce" else would.get(effect, effect)
        self._content.record(
            GuardCheck(
                guard=self._name,
                phase=self._content.phase,
                verdict=verdict,
                version=version,
                findings=rules,
                score=score,
            )
        )

    def _record(self) -> None:
        self._content.record(
            GuardCheck(
                guard=self._name,
                phase=self._content.phase,
                verdict="passed",
                version=detector_of(self._guard).version,
                bytes=self._size,
                us=int(self._seconds * 1e6),
            )
        )

    def _failed(self, reason: str) -> str:
        """Record that the guard failed. Raises `GuardFailedError` if it fails closed."""
        content, guard = self._content, self._guard
        content.record(
            GuardCheck(
                guard=self._name,
                phase=content.phase,
                verdict="failed",
                bytes=self._size,
                error=reason,
            )
        )
        if guard.fails_closed:
            shown = failed_reason(self._name, content.phase, reason)
            raise GuardFailedError(shown, guard=self._name, phase=content.phase)
        rest, self._held = self._held.unsearched(), HeldText(lambda _window: ())
        return rest


class _CollectedText:
    """The check of a text in segments, which are delayed until they are checked."""

    def __init__(self, check: Callable[[str], Awaitable[str]], segment: int) -> None:
        self._check = check
        self._segment = segment
        self._text = ""

    async def feed(self, text: str) -> str:
        """Accept a piece, and return the segment that was checked."""
        self._text += text
        if len(self._text) < self._segment:
            return ""
        end = self._text.rfind(" ") + 1 or len(self._text)
        segment, self._text = self._text[:end], self._text[end:]
        return await self._check(segment)

    async def end(self) -> str:
        """Return the rest."""
        segment, self._text = self._text, ""
        return await self._check(segment) if segment else ""


def _stage_of(content: GuardedContent, name: str) -> Stage:
    guard = content.inspector.guards.get(name)

    async def check(segment: str) -> str:
        cleaned = await content.cleaned(_encode([segment]), (name,))
        return str(msgspec.json.decode(cleaned)[0])

    if guard is not None and guard.is_built_in and guard.kind != "limits":
        return _SearchedText(content, name, guard)
    is_service = guard is not None and not guard.is_built_in
    return _CollectedText(check, SEGMENT if is_service else MAX_HELD)
