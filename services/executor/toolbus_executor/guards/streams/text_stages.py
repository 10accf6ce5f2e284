"""The check of one text of a stream by each guard in turn, while the text arrives."""

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter, time
from typing import Any, Protocol

import msgspec

from toolbus_common.config.guards.guard import Guard
from toolbus_common.contracts import GuardCheck
from toolbus_common.errors import GuardFailedError
from toolbus_common.guards.detectors import detector_of, is_compiled
from toolbus_common.guards.messages import failed_reason
from toolbus_common.guards.redaction import without_placeholders
from toolbus_common.guards.texts.scan_threads import scanned
from toolbus_common.guards.texts.time_limit import time_limit
from toolbus_executor.guards.call_guards import GuardedContent
from toolbus_executor.guards.held_secrets import HeldSecrets, note
from toolbus_executor.guards.own_secrets import RULE
from toolbus_executor.guards.streams.held_text import HeldText, Match

SEGMENT = 2000  # new characters that a guard of another service checks at a time
OVERLAP = 400  # characters before the new ones that are checked again

_encode = msgspec.json.Encoder().encode


class Stage(Protocol):
    """The check of one text by one guard."""

    async def feed(self, text: str) -> str:
        """Accept a piece, and return what was checked. Raises the error of the guard."""
        ...

    async def end(self) -> str:
        """Return the rest, which was checked. Raises the error of the guard."""
        ...

    @property
    def size(self) -> int:
        """The characters that are kept."""
        ...


class GuardedText:
    """One text of a stream. Each guard checks the text that the guard before it returns.

    The secrets of Toolbus itself are searched first.
    """

    def __init__(self, content: GuardedContent, secrets: HeldSecrets | None) -> None:
        self._stages = [_stage_of(content, name) for name in content.names]
        guard = None if secrets is None else secrets.guard_of(content)
        if secrets is not None and guard is not None:
            self._stages.insert(0, _OwnSecretsText(content, secrets, *guard))

    @property
    def size(self) -> int:
        """The characters that are kept."""
        return sum(stage.size for stage in self._stages)

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


class _OwnSecretsText:
    """The search of a text for the secrets of Toolbus itself."""

    def __init__(
        self, content: GuardedContent, secrets: HeldSecrets, name: str, guard: Guard
    ) -> None:
        self._content = content
        self._secrets = secrets
        self._name = name
        self._guard = guard
        self._held = HeldText(self._matches, secrets.longest)

    @property
    def size(self) -> int:
        """The characters that are kept."""
        return self._held.size

    async def feed(self, text: str) -> str:
        """Accept a piece, and return what was searched."""
        return self._held.feed(text)

    async def end(self) -> str:
        """Return the rest."""
        return self._held.end()

    def _matches(self, window: str) -> list[Match]:
        found = self._secrets.find(window)
        if not found:
            return []
        content, checked = self._content, self._content.checked
        if self._guard.action == "block":
            self._secrets.block(self._name, content, len(window), is_sent=False)
        note(self._name, content, "redacted", 0)
        text_of = content.guards.placeholders.text_of
        return [
            Match(
                each.start,
                each.end,
                text_of(checked.principal_id, checked.run, RULE, window[each.start : each.end]),
            )
            for each in found
        ]


class _SearchedText:
    """The search of a text by a built-in guard, which delays a part of limited size."""

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

    @property
    def size(self) -> int:
        """The characters that are kept."""
        return self._held.size

    async def feed(self, text: str) -> str:
        """Accept a piece, and return what was searched."""
        held = self._held
        return await self._searched(lambda: held.feed(text), text)

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
        content, rest = self._content, self._held.unsearched + text
        try:
            call = content.checked
            limit = max(0.0, min(self._guard.timeout, call.deadline - time()))
            async with asyncio.timeout(limit):
                found = await scanned(
                    self._held.size + len(text), call, lambda: _limited(search, self._guard.timeout)
                )
        except _Found:
            await self._reject()
            raise
        except TimeoutError:  # the thread goes on with the text that is dropped here
            return self._failed(f"it took longer than {self._guard.timeout:g} s", rest)
        except Exception as error:  # noqa: BLE001 - an error of a detector can contain the text
            return self._failed(f"it had an internal error ({type(error).__name__})", rest)
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

    def _failed(self, reason: str, rest: str) -> str:
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
        self._held = HeldText(lambda _window: (), 0)
        return rest


class _CollectedText:
    """The check of a text in segments, which are delayed until they are checked.

    The end of a segment is delayed too, and checked again with the next one, so that a phrase
    across their border is found. Without a size, the text is one segment.
    """

    def __init__(self, check: Callable[[str], Awaitable[str]], segment: int | None) -> None:
        self._check = check
        self._segment = segment
        self._tail = ""  # the end of the last segment; it was checked once
        self._new: list[str] = []
        self._new_size = 0

    @property
    def size(self) -> int:
        """The characters that are kept."""
        return len(self._tail) + self._new_size

    async def feed(self, text: str) -> str:
        """Accept a piece, and return the segment that was checked."""
        self._new.append(text)
        self._new_size += len(text)
        if self._segment is None or self._new_size < self._segment:
            return ""
        checked = await self._checked()
        end = max(0, len(checked) - OVERLAP)
        end = checked.rfind(" ", max(0, end - OVERLAP), end) + 1 or end
        self._tail = checked[end:]
        return checked[:end]

    async def end(self) -> str:
        """Return the rest."""
        rest = await self._checked() if self._new_size else self._tail
        self._tail = ""
        return rest

    async def _checked(self) -> str:
        text = self._tail + "".join(self._new)
        self._tail, self._new, self._new_size = "", [], 0
        return await self._check(text)


def _stage_of(content: GuardedContent, name: str) -> Stage:
    guard = content.inspector.guards.get(name)

    async def check(segment: str) -> str:
        cleaned = await content.cleaned(_encode([segment]), (name,))
        return str(msgspec.json.decode(cleaned)[0])

    if guard is not None and guard.is_built_in and guard.kind != "limits":
        return _SearchedText(content, name, guard)
    is_service = guard is not None and not guard.is_built_in
    return _CollectedText(check, SEGMENT if is_service else None)


def _limited(search: Callable[[], str], seconds: float) -> str:
    """Search with a time limit, which also ends the work of a thread."""
    with time_limit(seconds):
        return search()
