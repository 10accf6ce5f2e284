"""The arguments of a call as an approver sees them, without what its guards found (no I/O)."""

from collections.abc import Iterable, Mapping
from itertools import count

from toolbus_common.config import Guard
from toolbus_common.contracts.events.guards import GuardCheck
from toolbus_common.guards.content import Content
from toolbus_common.guards.detectors import SEARCHING, detector_of
from toolbus_common.guards.redaction import redact, without_placeholders

UNREADABLE = '"(hidden, because a guard found something in it)"'


def without_matches(
    guards: Mapping[str, Guard], checks: Iterable[GuardCheck], arguments: bytes
) -> str:
    """Return arguments with `[hidden:RULE]` where built-in guards require an approval.

    A guard that asks a service receives no positions of findings, so nothing is hidden for such a
    guard. Equal values have equal marks.
    """
    content, numbers = Content(arguments), count(1)
    known: dict[tuple[str, str], str] = {}

    def mark(rule: str, value: str) -> str:
        if (rule, value) not in known:
            known[rule, value] = f"[hidden:{rule} {next(numbers)}]"
        return known[rule, value]

    try:
        for check in checks:
            guard = guards.get(check.guard)
            if check.verdict != "asked" or guard is None or guard.kind not in SEARCHING:
                continue
            document = content.texts(frozenset(guard.fields))
            found = detector_of(guard).find(document.texts)
            findings = without_placeholders(
                document.texts, [each for each in found if each.score >= guard.min_score]
            )
            if findings:
                content.replace(redact(document, findings, mark).value)
        return content.body.decode()
    except ValueError:
        return UNREADABLE
