"""The guards of the current configuration, and their application to one call."""

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any

from toolbus_common.calls.event_fields import call_fields
from toolbus_common.config.guards.guard import Guard, Phase
from toolbus_common.contracts import CallAdmitted, CheckedCall, GuardCheck, GuardFailed
from toolbus_common.contracts.guards import ServiceCheck, ServiceVerdict
from toolbus_common.errors import GuardFailedError
from toolbus_common.guards.content import Content
from toolbus_common.guards.inspector import Inspection, Inspector
from toolbus_common.guards.messages import failed_reason
from toolbus_common.guards.placeholders import Placeholders
from toolbus_common.guards.texts.scan_threads import scanned
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_common.plugins.checks import PluginChecks

MOST_CHECKS = 64  # checks in the event of one call

# How much a verdict matters in the record of several checks by one guard.
_RANKS = {
    "passed": 0, "flagged": 1, "would_ask": 2, "would_redact": 3, "would_block": 4,
    "redacted": 5, "asked": 6, "failed": 7, "blocked": 8,
}  # fmt: skip


class CallGuards:
    """The guards of the current configuration, which `configured` returns."""

    def __init__(
        self,
        configured: Callable[[], Mapping[str, Guard]],
        placeholders: Placeholders,
        events: EventPublisher,
        ask_service: ServiceCheck | None = None,
        plugins: PluginChecks | None = None,
    ) -> None:
        self.plugins = plugins
        self.ask_service = ask_service
        self.placeholders = placeholders
        self.events = events
        self._configured = configured
        self._inspector: Inspector | None = None
        self._declared: Mapping[str, Guard] = {}
        self._marks: dict[str, str] = {}

    @property
    def inspector(self) -> Inspector:
        """The inspector with the guards of the current configuration."""
        declared = self._configured()
        if self._inspector is None or declared is not self._declared:
            self._declared, self._marks = declared, {}
            self._inspector = Inspector(
                declared, self._ask, self.placeholders, plugins=self.plugins
            )
        return self._inspector

    async def _ask(
        self, guard: str, phase: str, call: CheckedCall, content: bytes
    ) -> ServiceVerdict:
        """Ask the service of a guard. Raises `ToolbusError`."""
        if self.ask_service is None:
            raise GuardFailedError(
                "This process cannot send content to guard services; see its log.",
                guard=guard,
                phase=phase,
            )
        return await self.ask_service(guard, phase, call, content)

    def mark_of(self, name: str) -> str:
        """Return what identifies a guard with its settings; it contains no secret."""
        inspector = self.inspector
        if name not in self._marks:
            guard = inspector.guards.get(name)
            settings = guard.model_dump_json() if guard is not None else ""
            self._marks[name] = f"{name}:{sha256(settings.encode()).hexdigest()[:16]}"
        return self._marks[name]


def unavailable(call: CallAdmitted) -> GuardFailedError:
    """Return the error of a call whose guards cannot run in this process."""
    reason = "this executor has not loaded its guards yet"
    text = failed_reason(call.guards[0], "results", reason)
    return GuardFailedError(text, guard=call.guards[0], phase="results", sent=False)


class GuardedContent:
    """The checks of the contents of one call, in one phase."""

    def __init__(self, guards: CallGuards, call: CallAdmitted, phase: Phase) -> None:
        self.call = call
        self.phase = phase
        self.inspector = guards.inspector
        self.guards = guards
        self.names = self.inspector.applicable(call.guards, phase)
        self.checked = CheckedCall(
            call_id=call.call_id,
            customer=call.customer,
            key=call.key,
            server=call.server,
            tool=call.tool,
            deadline=call.deadline,
            principal_id=call.principal_id,
            run=call.run,
        )
        self._checks: dict[tuple[str, str], GuardCheck] = {}

    @property
    def attached(self) -> tuple[str, ...]:
        """The names of all guards of the call, whatever they check."""
        return self.call.guards

    @property
    def checks(self) -> tuple[GuardCheck, ...]:
        """What each guard did in the call, and each plugin at each point: one check each."""
        return tuple(self._checks.values())[:MOST_CHECKS]

    @property
    def marks(self) -> tuple[str, ...]:
        """What identifies the guards that check the content, with their settings."""
        return tuple(self.guards.mark_of(each) for each in self.names)

    async def inspect(
        self, body: bytes, names: Sequence[str] | None = None, **more: Any
    ) -> Inspection:
        """Check one content, and record the checks. `more` are arguments of the inspector."""
        applied = self.names if names is None else names
        found = await self.inspector.inspect(applied, self.phase, self.checked, body, **more)
        self.record(*found.checks)
        return found

    async def cleaned(self, body: bytes, names: Sequence[str] | None = None, **more: Any) -> bytes:
        """Return one content after its redactions. Raises the error of a guard."""
        found = await self.inspect(body, names, **more)
        if found.error is not None:
            raise found.error
        return found.body

    async def clean(
        self, content: Content, names: Sequence[str] | None = None, **more: Any
    ) -> None:
        """Make the redactions of the guards in a parsed content. Raises the error of a guard."""
        applied = self.names if names is None else names
        found = await self.inspector.inspect_content(
            applied, self.phase, self.checked, content, **more
        )
        self.record(*found.checks)
        if found.error is not None:
            raise found.error

    async def ask_plugins(self, point: str, body: bytes) -> None:
        """Ask the plugins of a point at which no guard checks the content.

        Raises the error of a plugin.
        """
        found = await self.inspector.ask_plugins(self.call.guards, point, self.checked, body)
        self.record(*found.checks)
        if found.error is not None:
            raise found.error

    async def body_of(self, content: Content) -> bytes:
        """Return a content as bytes."""
        return await scanned(content.size, self.checked, lambda: content.body)

    def record(self, *checks: GuardCheck) -> None:
        """Record checks; several checks by one guard become one."""
        for each in checks:
            mark = each.guard, each.phase
            before = self._checks.get(mark)
            self._checks[mark] = each if before is None else together(before, each)
            if each.verdict == "failed":
                self._report(each)

    def fail(self, reason: str, size: int) -> None:
        """Record that no guard could check a content.

        Raises `GuardFailedError` if one of the guards fails closed.
        """
        checks = [
            GuardCheck(guard=name, phase=self.phase, verdict="failed", bytes=size, error=reason)
            for name in self.names
        ]
        self.record(*checks)
        for name in self.names:
            if self.inspector.fails_closed(name):
                text = failed_reason(name, self.phase, reason)
                raise GuardFailedError(text, guard=name, phase=self.phase)

    def _report(self, check: GuardCheck) -> None:
        """Publish that a guard could not check a content, but allowed it because it fails open."""
        if self.inspector.fails_closed(check.guard):
            return  # the call fails
        call = self.call
        self.guards.events.publish(
            GuardFailed(
                id=f"{call.call_id}.guard.{check.phase}.{check.guard}",
                **call_fields(call, call.customer, call.key),
                guard=check.guard,
                phase=check.phase,
                reason=check.error,
            )
        )


def together(before: GuardCheck, after: GuardCheck) -> GuardCheck:
    """Return the record of two checks by one guard."""
    worse = after if _RANKS[after.verdict] > _RANKS[before.verdict] else before
    return worse.model_copy(
        update={
            "version": after.version or before.version,
            "findings": tuple(sorted({*before.findings, *after.findings}))[:MOST_CHECKS],
            "score": max(before.score, after.score),
            "bytes": before.bytes + after.bytes,
            "us": before.us + after.us,
            "error": before.error or after.error,
            "cached": before.cached and after.cached,
        }
    )
