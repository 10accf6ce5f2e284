"""The secrets that this executor itself holds. No call may send them, and no result return them."""

import asyncio
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from time import time
from typing import Any, NoReturn, Protocol

from toolbus_common.config.guards.guard import Guard, Phase
from toolbus_common.contracts import CheckedCall, GuardCheck
from toolbus_common.contracts.events.guards import Verdict
from toolbus_common.errors import GuardBlockedError, GuardFailedError
from toolbus_common.guards.content import Content
from toolbus_common.guards.inspector import Inspector
from toolbus_common.guards.messages import blocked_reason, failed_reason
from toolbus_common.guards.redaction import Redacted, redact
from toolbus_common.guards.texts.findings import Finding
from toolbus_common.guards.texts.json_texts import CollisionError
from toolbus_common.guards.texts.scan_threads import scanned
from toolbus_common.guards.texts.time_limit import time_limit
from toolbus_common.secrets import Values, filled
from toolbus_executor.guards.call_guards import CallGuards, GuardedContent
from toolbus_executor.guards.own_secrets import RULE, OwnSecrets

MOST_OWNERS = 1024  # servers, providers and people whose secrets are known
# Names of headers whose literal values count as secrets. `Accept` is not such a name.
_SECRET_NAME = re.compile(
    r"auth|cookie|credential|key|passw|secret|session|sign|token", re.IGNORECASE
)


class Searched(Protocol):
    """A content of a call or of a message, and the record of its checks."""

    phase: Phase
    inspector: Inspector
    guards: CallGuards
    checked: CheckedCall
    names: tuple[str, ...]  # of the guards that check this content

    @property
    def attached(self) -> Sequence[str]:
        """The names of all guards of the call, whatever they check."""
        ...

    def record(self, *checks: GuardCheck) -> None:
        """Record checks."""
        ...


class HeldSecrets:
    """The current secrets by owner, such as a server. They are indexed at the first search."""

    def __init__(self) -> None:
        self._by_owner: OrderedDict[str, frozenset[str]] = OrderedDict()
        self._own = OwnSecrets()
        self._is_current = True

    def renew(self, owner: str, values: Iterable[str]) -> None:
        """Replace the secrets of one owner."""
        known = frozenset(values)
        self._is_current = self._is_current and self._by_owner.get(owner) == known
        self._by_owner[owner] = known
        self._by_owner.move_to_end(owner)
        if len(self._by_owner) > MOST_OWNERS:
            self._by_owner.popitem(last=False)

    async def clean(self, document: Content, content: Searched, *, is_sent: bool) -> None:
        """Replace the secrets in a document, if a guard of the call looks for secrets.

        Raises:
            GuardBlockedError: the document would be sent with a secret (`is_sent`), or a guard
                blocks secrets.
            GuardFailedError: the search took longer than the guard's timeout, or two parsers could
                read the document differently and no other guard checks it.

        """
        guard = self.guard_of(content)
        if guard is None:
            return
        name, found_guard = guard
        blocks = is_sent or found_guard.action == "block"
        own, call = self._searched, content.checked
        seconds = max(0.0, min(found_guard.timeout, call.deadline - time()))

        def search() -> Redacted | None:
            with time_limit(found_guard.timeout):
                return _found(own, document, content, blocks=blocks)

        try:
            async with asyncio.timeout(seconds):
                found = await scanned(document.size, call, search)
        except (TimeoutError, ValueError) as error:
            if isinstance(error, TimeoutError):
                reason = f"it took longer than {found_guard.timeout:g} s"
            elif name in content.names and not is_sent and not isinstance(error, CollisionError):
                return  # the guard rejects it itself, or its failure is recorded
            else:
                reason = str(error)
            phase: Phase = "arguments" if is_sent else content.phase
            _fail(name, found_guard, phase, content, document.size, reason)
            return
        if found is None:
            return
        if blocks:
            self.block(name, content, document.size, is_sent=is_sent)
        note(name, content, "redacted", document.size)
        document.replace(found.value)

    def guard_of(self, content: Searched) -> tuple[str, Guard] | None:
        """Return the guard that decides about these secrets in a content, if there are any."""
        guards = [
            (name, guard)
            for name in content.attached
            if (guard := content.inspector.guards.get(name)) is not None
            and guard.kind == "secrets"
            and guard.mode == "enforce"
        ]
        if not guards or not self._by_owner:
            return None
        return next((each for each in guards if each[1].action == "block"), guards[0])

    def block(self, name: str, content: Searched, size: int, *, is_sent: bool) -> NoReturn:
        """Record that a content has a secret, and raise `GuardBlockedError`."""
        note(name, content, "blocked", size)
        phase: Phase = "arguments" if is_sent else content.phase
        reason = blocked_reason(name, "block", phase, [RULE])
        raise GuardBlockedError(reason, guard=name, phase=phase, findings=[RULE])

    @property
    def longest(self) -> int:
        """The number of characters of the longest spelling of a secret."""
        return self._searched.longest

    def find(self, text: str) -> list[Finding]:
        """Return where the secrets are in a text."""
        return self._searched.find([text])

    @property
    def _searched(self) -> OwnSecrets:
        if not self._is_current:
            self._own.replace(frozenset[str]().union(*self._by_owner.values()))
            self._is_current = True
        return self._own


def _found(
    own: OwnSecrets, document: Content, content: Searched, *, blocks: bool
) -> Redacted | None:
    """Return a document without the secrets.

    The result is empty if the document is blocked, and None if it has no secrets.

    Raises `ValueError` for a document that parsers could read differently.
    """
    texts = document.texts(frozenset())
    findings = own.find(texts.texts)
    if not findings:
        return None
    if blocks:
        return Redacted(None, {})
    call, placeholders = content.checked, content.guards.placeholders
    return redact(
        texts,
        findings,
        lambda rule, value: placeholders.text_of(call.principal_id, call.run, rule, value),
    )


def _fail(name: str, guard: Guard, phase: Phase, content: Searched, size: int, reason: str) -> None:
    """Record that the search failed. Raises `GuardFailedError` if the guard fails closed."""
    content.record(
        GuardCheck(guard=name, phase=content.phase, verdict="failed", bytes=size, error=reason)
    )
    if guard.fails_closed:
        raise GuardFailedError(failed_reason(name, phase, reason), guard=name, phase=phase)


async def cleaned(
    document: Content,
    content: GuardedContent,
    secrets: HeldSecrets | None,
    names: Sequence[str] | None = None,
) -> Any:
    """Return the value of a document without secrets, after its guards; None if it is unchanged.

    Raises the error of a guard.
    """
    if secrets is not None:
        await secrets.clean(document, content, is_sent=False)
    await content.clean(document, names)
    return document.value if document.is_changed else None


def note(name: str, content: Searched, verdict: Verdict, size: int) -> None:
    """Record what happened to a content with a secret."""
    content.record(
        GuardCheck(
            guard=name,
            phase=content.phase,
            verdict=verdict,
            findings=(RULE,),
            score=1.0,
            bytes=size,
        )
    )


def secrets_in(headers: Mapping[str, str], found: Values) -> list[str]:
    """Return the secret values of a server's headers, without a scheme such as `Bearer`."""
    values = [(name, text, filled(text, found)) for name, text in headers.items()]
    return [
        value.rpartition(" ")[2]
        for name, text, value in values
        if value != text or _SECRET_NAME.search(name) is not None
    ]
