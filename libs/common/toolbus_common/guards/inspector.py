"""Inspection of content by the guards that apply to it, in the order of their declaration.

The redactions of one guard are the input of the next. Each guard produces one `GuardCheck`. After a
guard rejects the content, the later guards do not check it: it is not sent, and no further service
receives it.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter, time
from typing import Any

import msgspec
from msgspec import Struct

from toolbus_common.config.guards.guard import Guard, Phase
from toolbus_common.contracts.events.guards import GuardCheck, Verdict
from toolbus_common.contracts.guards import CheckedCall, ServiceCheck
from toolbus_common.errors import GuardBlockedError, GuardFailedError, ToolbusError
from toolbus_common.guards.content import Content, fields_put_back
from toolbus_common.guards.detectors import detector_of, exceeded_limits, is_compiled
from toolbus_common.guards.messages import blocked_reason, failed_reason, shown_names
from toolbus_common.guards.placeholders import Placeholders
from toolbus_common.guards.redaction import redact, without_placeholders
from toolbus_common.guards.texts.scan_threads import LARGE, scanned
from toolbus_common.guards.texts.time_limit import time_limit
from toolbus_common.observability.guard_metrics import record_check
from toolbus_common.plugins.checks import POINTS, PluginChecks
from toolbus_common.plugins.subjects import is_plugin

log = logging.getLogger(__name__)

__all__ = ["LARGE", "Inspection", "Inspector"]
# Phases in which a call can still wait for an approval.
_ASKING: frozenset[Phase] = frozenset({"arguments", "prompts"})
_WOULD: dict[str, Verdict] = {
    "blocked": "would_block", "redacted": "would_redact", "asked": "would_ask",
}  # fmt: skip
_UNKNOWN = "the configuration of this service does not contain the guard"


class Inspection(Struct, frozen=True):
    """The result of an inspection.

    `body` is the content after all redactions; it is the same object if nothing was redacted.
    `error` is set if the content must not be used; `body` is then empty. `ask` is the guard that
    requires an approval.
    """

    body: bytes
    checks: tuple[GuardCheck, ...] = ()
    error: ToolbusError | None = None
    ask: str = ""


class _Found(Struct, frozen=True):
    """What one guard found. `redacted` is the content without it, if the guard redacts."""

    findings: tuple[str, ...] = ()
    score: float = 0.0
    version: str = ""
    cached: bool = False
    redacted: Any = msgspec.UNSET


class _GuardFaultError(Exception):
    """A guard could not check the content. The message is the reason."""


class Inspector:
    """Inspector of contents with the guards of one configuration.

    `on_open_failure` is called with each failed check of a guard that then allows the content.
    """

    def __init__(
        self,
        guards: Mapping[str, Guard],
        ask_service: ServiceCheck,
        placeholders: Placeholders,
        on_open_failure: Callable[[CheckedCall, GuardCheck], None] = lambda _call, _check: None,
        plugins: PluginChecks | None = None,
    ) -> None:
        self.guards = guards
        self._plugins = plugins
        self._order = {name: number for number, name in enumerate(guards)}
        self._ask_service = ask_service
        self._placeholders = placeholders
        self._on_open_failure = on_open_failure

    def applicable(self, names: Sequence[str], phase: Phase) -> tuple[str, ...]:
        """Return the guards among `names` that check this phase, in the order of declaration.

        Plugins that may change the content come before the guards, and other plugins after them.
        Unknown guards come last: their checks fail.
        """
        known = {each for each in names if each in self.guards and phase in self.guards[each].on}
        guards = sorted(known, key=self._order.__getitem__)
        others = dict.fromkeys(each for each in names if each not in self.guards)
        if self._plugins is None or not any(map(is_plugin, others)):
            return (*guards, *others)
        plugins = self._plugins.at(others, POINTS.get(phase, ""))
        first = [each for each in plugins if self._plugins.changes(each)]
        later = [each for each in plugins if each not in first]
        return (*first, *guards, *later, *(each for each in others if not is_plugin(each)))

    def fails_closed(self, name: str) -> bool:
        """Return whether a call is rejected if this guard or plugin could not check it."""
        if is_plugin(name):
            return self._plugins is None or self._plugins.fails_closed(name)
        guard = self.guards.get(name)
        return guard is None or guard.fails_closed

    async def ask_plugins(
        self, names: Sequence[str], point: str, call: CheckedCall, body: bytes
    ) -> Inspection:
        """Ask the plugins among `names` at a point at which no guard checks the content."""
        checks, content = list[GuardCheck](), Content(body)
        for name in self._plugins.at(names, point) if self._plugins is not None else ():
            check, error = await self._ask_plugin(name, point, call, content)
            checks.append(check)
            if error is not None:
                return Inspection(b"", tuple(checks), error)
        return Inspection(body, tuple(checks))

    async def inspect(
        self,
        names: Sequence[str],
        phase: Phase,
        call: CheckedCall,
        body: bytes,
        *,
        output_schema: Any = None,
        may_ask: bool = True,
    ) -> Inspection:
        """Check content with the guards among `names` that apply to this phase.

        `output_schema` is the schema of a structured result. Without `may_ask`, and after the call
        was executed, a guard that requires an approval rejects the content.
        """
        content = Content(body)
        found = await self.inspect_content(
            names, phase, call, content, output_schema=output_schema, may_ask=may_ask
        )
        if found.error is not None:
            return found
        written = await scanned(content.size, call, lambda: content.body)
        return Inspection(written, found.checks, None, found.ask)

    async def inspect_content(
        self,
        names: Sequence[str],
        phase: Phase,
        call: CheckedCall,
        content: Content,
        *,
        output_schema: Any = None,
        may_ask: bool = True,
    ) -> Inspection:
        """Check content like `inspect`. Redactions are made in `content`; `body` is empty."""
        checks, ask = list[GuardCheck](), ""
        may_ask = may_ask and phase in _ASKING
        for name in self.applicable(names, phase):
            if is_plugin(name):
                check, error = await self._ask_plugin(name, POINTS.get(phase, ""), call, content)
            else:
                check, error = await self._check(
                    name, phase, call, content, output_schema, may_ask=may_ask
                )
                record_check(check, fails_closed=self.fails_closed(name))
            checks.append(check)
            if error is not None:
                return Inspection(b"", tuple(checks), error)
            if check.verdict == "asked":
                ask = ask or name
        return Inspection(b"", tuple(checks), None, ask)

    async def _ask_plugin(
        self, name: str, point: str, call: CheckedCall, content: Content
    ) -> tuple[GuardCheck, ToolbusError | None]:
        """Return the check by a plugin, and the error if the content must not be used."""
        if self._plugins is None:
            return self._failed(
                name, None, "arguments", call, content.size, perf_counter(), _UNKNOWN
            )
        found = await self._plugins.check(name, point, call, content.size, lambda: content.value)
        record_check(found.check, fails_closed=self.fails_closed(name))
        if found.changed is not msgspec.UNSET:
            content.replace(found.changed)
        if found.check.verdict == "failed" and found.error is None:
            self._on_open_failure(call, found.check)
        return found.check, found.error

    async def _check(
        self,
        name: str,
        phase: Phase,
        call: CheckedCall,
        content: Content,
        output_schema: Any,
        *,
        may_ask: bool,
    ) -> tuple[GuardCheck, ToolbusError | None]:
        """Return the check of one guard, and the error if the content must not be used."""
        guard, size, began = self.guards.get(name), content.size, perf_counter()
        if guard is None:
            return self._failed(name, None, phase, call, size, began, _UNKNOWN)
        try:
            found = await self._found(name, guard, phase, call, content, output_schema)
        except _GuardFaultError as fault:
            return self._failed(name, guard, phase, call, size, began, str(fault))
        verdict: Verdict = "passed"
        if found.findings:
            verdict = _verdict(guard, found, may_ask=may_ask)
        enforced = guard.mode == "enforce"
        if verdict == "redacted" and enforced:
            content.replace(found.redacted)
        check = GuardCheck(
            guard=name,
            phase=phase,
            verdict=verdict if enforced else _WOULD.get(verdict, verdict),
            version=found.version,
            findings=found.findings,
            score=found.score,
            bytes=size,
            us=_microseconds(began),
            cached=found.cached,
        )
        if check.verdict != "blocked":
            return check, None
        reason = blocked_reason(name, guard.action, phase, found.findings)
        data = {"guard": name, "phase": phase, "findings": [*found.findings]}
        return check, GuardBlockedError(reason, **data)

    def _failed(
        self,
        name: str,
        guard: Guard | None,
        phase: Phase,
        call: CheckedCall,
        size: int,
        began: float,
        reason: str,
    ) -> tuple[GuardCheck, ToolbusError | None]:
        check = GuardCheck(
            guard=name,
            phase=phase,
            verdict="failed",
            bytes=size,
            us=_microseconds(began),
            error=reason,
        )
        if guard is None or guard.fails_closed:
            text = failed_reason(name, phase, reason)
            return check, GuardFailedError(text, guard=name, phase=phase)
        self._on_open_failure(call, check)
        return check, None

    async def _found(
        self,
        name: str,
        guard: Guard,
        phase: Phase,
        call: CheckedCall,
        content: Content,
        output_schema: Any,
    ) -> _Found:
        """Return what a guard finds. Raises `_GuardFaultError`."""
        try:
            if guard.is_built_in and not is_compiled(guard):
                await asyncio.to_thread(detector_of, guard)
            seconds = max(0.0, min(guard.timeout, call.deadline - time()))
            async with asyncio.timeout(seconds):
                if not guard.is_built_in:
                    return await self._ask(name, guard, phase, call, content)

                def scan() -> tuple[_Found, dict[str, str]]:
                    with time_limit(guard.timeout):
                        return self._scan(guard, call, content, output_schema)

                found = await scanned(content.size, call, scan)
                if guard.restore and guard.mode == "enforce" and found[1]:
                    await self._placeholders.store(call.principal_id, call.run, name, found[1])
                return found[0]
        except TimeoutError:
            raise _GuardFaultError(f"it took longer than {guard.timeout:g} s") from None
        except ToolbusError as error:
            raise _GuardFaultError(error.reason) from error
        except ValueError as error:  # also from the parser
            raise _GuardFaultError(_own_text(error)) from None
        except _GuardFaultError:
            raise
        except Exception as error:  # noqa: BLE001 - a fault of a guard must not stop the service
            # The trace of an error in a detector can contain the content.
            log.error("guard.error", extra={"guard": name, "error": type(error).__name__})  # noqa: TRY400
            raise _GuardFaultError(f"it had an internal error ({type(error).__name__})") from None

    def _scan(
        self, guard: Guard, call: CheckedCall, content: Content, output_schema: Any
    ) -> tuple[_Found, dict[str, str]]:
        """Return what a built-in guard finds, and the values of its placeholders."""
        if guard.kind == "limits":
            names = exceeded_limits(guard.options, content.body, output_schema)
            return _Found(shown_names(names), 1.0 if names else 0.0, "1"), {}
        detector = detector_of(guard)
        document = content.texts(frozenset(guard.fields))
        findings = without_placeholders(
            document.texts,
            [each for each in detector.find(document.texts) if each.score >= guard.min_score],
        )
        if not findings:
            return _Found(version=detector.version), {}
        names = shown_names(each.rule for each in findings)
        score = max(each.score for each in findings)
        if guard.action != "redact" or guard.mode != "enforce":
            return _Found(names, score, detector.version), {}
        changed = redact(
            document,
            findings,
            lambda rule, value: self._placeholders.text_of(
                call.principal_id, call.run, rule, value
            ),
        )
        return _Found(names, score, detector.version, redacted=changed.value), changed.values

    async def _ask(
        self, name: str, guard: Guard, phase: Phase, call: CheckedCall, content: Content
    ) -> _Found:
        """Return what the service of a guard finds."""
        sent = content.without(frozenset(guard.fields))
        verdict = await self._ask_service(name, phase, call, sent)
        names = shown_names(verdict.findings) if verdict.score >= guard.min_score else ()
        redacted: Any = msgspec.UNSET
        if names and verdict.content and guard.action == "redact":
            redacted = fields_put_back(
                verdict.content.encode(), content.value, frozenset(guard.fields)
            )
        return _Found(names, verdict.score, verdict.version[:64], verdict.cached, redacted)


def _verdict(guard: Guard, found: _Found, *, may_ask: bool) -> Verdict:
    """Return the verdict on findings, as if the guard were enforced.

    A redaction needs a redacted form, and an approval a call that can wait; without them, the
    content is blocked.
    """
    if guard.action == "flag":
        return "flagged"
    if guard.action == "ask" and may_ask:
        return "asked"
    observed = guard.mode == "observe" and guard.is_built_in and guard.kind != "limits"
    if guard.action == "redact" and (observed or found.redacted is not msgspec.UNSET):
        return "redacted"
    return "blocked"


def _own_text(error: ValueError) -> str:
    """Return an error's text if it is from Toolbus; a library's text can contain the content."""
    module = type(error).__module__
    return (
        str(error)
        if type(error) is ValueError or module.startswith("toolbus")
        else ("the content is not a JSON document that guards can check")
    )


def _microseconds(began: float) -> int:
    return int((perf_counter() - began) * 1e6)
