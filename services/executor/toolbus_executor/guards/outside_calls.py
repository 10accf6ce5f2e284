"""Guards on messages outside of calls: what a server sends, and what its clients answer."""

from collections import OrderedDict
from collections.abc import Sequence
from secrets import token_hex
from time import time

from msgspec import Struct

from toolbus_common.config import Server
from toolbus_common.config.guards.guard import Phase
from toolbus_common.contracts import CallAdmitted, CheckedCall, GuardCheck, MessageGuarded
from toolbus_common.contracts.events.base import DEFAULT_CUSTOMER
from toolbus_common.contracts.events.guards import encoded_checks
from toolbus_common.errors import GuardBlockedError, GuardFailedError
from toolbus_common.guards.content import Content
from toolbus_common.guards.inspector import Inspection
from toolbus_common.guards.texts.scan_threads import scanned
from toolbus_executor.guards.call_guards import CallGuards, together
from toolbus_executor.guards.held_secrets import HeldSecrets
from toolbus_executor.mcp_messages.request_builder import refusal

MOST_KNOWN = 10_000  # sessions whose guards are known
SECONDS = 15.0  # for all guards of one message
REJECTED = -32603
_WITHHELD = "A guard of the gateway withheld the client's answer; do not repeat the request."


class _Known(Struct):
    """The guards of the calls in one session, and the last call.

    `names` maps each guard to whether it was configured at the time of the call.
    """

    call: CheckedCall
    names: dict[str, bool]


class _Message:
    """One message, and the checks of it."""

    def __init__(
        self, guards: CallGuards, checked: CheckedCall, phase: Phase, attached: Sequence[str]
    ) -> None:
        self.guards = guards
        self.inspector = guards.inspector
        self.checked = checked
        self.phase = phase
        self.attached = tuple(dict.fromkeys(attached))
        self.names = self.inspector.applicable(self.attached, phase)
        self.checks: dict[str, GuardCheck] = {}

    def record(self, *checks: GuardCheck) -> None:
        """Record checks; several checks by one guard become one."""
        for each in checks:
            before = self.checks.get(each.guard)
            self.checks[each.guard] = each if before is None else together(before, each)


class OutsideCalls:
    """The guards of one server's messages outside of calls.

    The guards of the server, and those with `always`, apply to every message. To the messages of a
    client's session, the guards of the session's calls apply too. A message is not sent if a guard
    rejects it, or if a guard that fails closed could not check it. `secrets` are those of Toolbus
    itself.
    """

    def __init__(
        self, server: str, declared: Server, guards: CallGuards, secrets: HeldSecrets | None = None
    ) -> None:
        self._server = server
        self._declared = declared
        self._guards = guards
        self._secrets = secrets
        self._sessions: OrderedDict[tuple[str, str], _Known] = OrderedDict()

    def note(self, principal_id: str, session: str, call: CallAdmitted) -> None:
        """Record the guards of a call, for the messages of its session."""
        configured = self._guards.inspector.guards
        before = self._sessions.pop((principal_id, session), None)
        names = before.names if before is not None else {}
        names.update((name, name in configured) for name in call.guards)
        checked = CheckedCall(
            call_id=call.call_id,
            customer=call.customer,
            key=call.key,
            server=call.server,
            tool=call.tool,
            deadline=call.deadline,
            principal_id=call.principal_id,
            run=call.run,
        )
        self._sessions[principal_id, session] = _Known(checked, names)
        if len(self._sessions) > MOST_KNOWN:
            self._sessions.popitem(last=False)

    async def answer(self, principal_id: str, session: str, method: str, member: bytes) -> bytes:
        """Return the raw member of a client's response as the server may receive it."""
        body = b"{" + member + b"}"
        found = await self._inspected(principal_id, session, method, "arguments", body)
        if found is None or found.body is body:
            return member
        return refusal(REJECTED, _WITHHELD) if found.error is not None else found.body[1:-1]

    async def message(
        self, principal_id: str, session: str, method: str, params: bytes
    ) -> bytes | None:
        """Return the params of a server's message as clients may receive them; None if withheld."""
        found = await self._inspected(principal_id, session, method, "results", params)
        if found is None:
            return params
        return None if found.error is not None else found.body

    async def _inspected(
        self, principal_id: str, session: str, method: str, phase: Phase, body: bytes
    ) -> Inspection | None:
        """Return the result of the inspection; None if no guard applies."""
        known = self._sessions.get((principal_id, session))
        configured = self._guards.inspector.guards
        names = [*self._declared.guards]
        names += [name for name, guard in configured.items() if guard.always]
        if known is not None:
            # A guard that was removed from the configuration does not apply anymore.
            names += [each for each, was in known.names.items() if each in configured or not was]
        if not names:
            return None
        call = known.call if known is not None else self._any_call(principal_id)
        call = call.model_copy(update={"deadline": time() + SECONDS})
        message = _Message(self._guards, call, phase, names)
        secrets = self._secrets
        if secrets is not None and secrets.guard_of(message) is None:
            secrets = None
        if not message.names and secrets is None:
            return None
        found = await _inspection(message, body, secrets)
        if any(each.verdict != "passed" for each in found.checks):
            self._report(call, method, found)
        return found

    def _any_call(self, principal_id: str) -> CheckedCall:
        """Return what guards know about a message that belongs to no known call."""
        return CheckedCall(
            call_id=f"message.{self._server}",
            customer=DEFAULT_CUSTOMER,
            key="",
            server=self._server,
            tool="",
            deadline=0.0,
            principal_id=principal_id,
        )

    def _report(self, call: CheckedCall, method: str, found: Inspection) -> None:
        self._guards.events.publish(
            MessageGuarded(
                id=f"{call.call_id}.message.{token_hex(8)}",
                at=time(),
                customer=call.customer,
                call_id=call.call_id,
                key=call.key,
                server=self._server,
                tool=call.tool,
                method=method,
                guards=encoded_checks(found.checks),
                withheld=found.error is not None,
            )
        )


async def _inspection(message: _Message, body: bytes, secrets: HeldSecrets | None) -> Inspection:
    """Return the result of the search for the secrets of Toolbus, and of all guards."""
    content, call, phase = Content(body), message.checked, message.phase
    if secrets is not None:
        try:
            await secrets.clean(content, message, is_sent=phase == "arguments")
        except (GuardBlockedError, GuardFailedError) as error:
            return Inspection(b"", tuple(message.checks.values()), error)
    found = await message.inspector.inspect_content(
        message.names, phase, call, content, may_ask=False
    )
    message.record(*found.checks)
    checks = tuple(message.checks.values())
    if found.error is not None:
        return Inspection(b"", checks, found.error)
    return Inspection(await scanned(content.size, call, lambda: content.body), checks)
