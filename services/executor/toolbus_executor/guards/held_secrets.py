"""The secrets that this executor itself holds. No call may send them, and no result return them."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import NoReturn

import msgspec

from toolbus_common.config.guards.guard import Guard, Phase
from toolbus_common.contracts import GuardCheck
from toolbus_common.contracts.events.guards import Verdict
from toolbus_common.errors import GuardBlockedError
from toolbus_common.guards.messages import blocked_reason
from toolbus_common.guards.redaction import redact
from toolbus_common.guards.texts.findings import Finding
from toolbus_common.guards.texts.json_texts import JsonTexts
from toolbus_executor.guards.call_guards import GuardedContent
from toolbus_executor.guards.own_secrets import RULE, OwnSecrets

MOST_OWNERS = 1024  # servers, providers and people whose secrets are known


class HeldSecrets:
    """The current secrets, by what they belong to. They are indexed at the first search."""

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

    def cleaned(self, body: bytes, content: GuardedContent, *, is_sent: bool) -> bytes:
        """Return a document without the secrets, if a guard looks for secrets.

        Raises:
            GuardBlockedError: the document would be sent with a secret (`is_sent`), or a guard
                blocks secrets.

        """
        guard = self.guard_of(content)
        if guard is None:
            return body
        try:
            texts = JsonTexts(body)
        except ValueError:
            return body  # the guards themselves reject it, or their failure is recorded
        findings = self._searched.find(texts.texts)
        if not findings:
            return body
        name, found = guard
        if is_sent or found.action == "block":
            self.block(name, content, len(body), is_sent=is_sent)
        note(name, content, "redacted", len(body))
        checked = content.checked
        placeholders = content.guards.placeholders
        changed = redact(
            texts,
            findings,
            lambda rule, value: placeholders.text_of(
                checked.principal_id, checked.run, rule, value
            ),
        )
        return msgspec.json.encode(changed.value)

    def guard_of(self, content: GuardedContent) -> tuple[str, Guard] | None:
        """Return the guard that decides about these secrets in a content, if there are any."""
        guards = [
            (name, guard)
            for name in content.call.guards
            if (guard := content.inspector.guards.get(name)) is not None
            and guard.kind == "secrets"
            and guard.mode == "enforce"
        ]
        if not guards or not self._by_owner:
            return None
        return next((each for each in guards if each[1].action == "block"), guards[0])

    def block(self, name: str, content: GuardedContent, size: int, *, is_sent: bool) -> NoReturn:
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


def note(name: str, content: GuardedContent, verdict: Verdict, size: int) -> None:
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
