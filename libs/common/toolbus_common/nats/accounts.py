"""NATS accounts: one per service, so that no answer of the server reaches another service.

The server does not check where a request's answer goes. In one account with everybody, a service
could have a stored message of its own delivered to any subject: to another service as a question,
or into another's bucket as an entry. In an account of its own such an answer stays there. What
crosses accounts is imported subject by subject, derived from the same rights as permissions.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

STORE = "TOOLBUS"  # holds streams, buckets and the operator
_STORED = ("$JS.", "$KV.", "$O.", "tb.event.")  # what a stream or the server's API takes
_REPEATED = "tb.kv."  # what the server says of what it stored
# Imported by every account, though no user may ask it: the server takes that for the sign that an
# account uses another's JetStream, and answers the account's requests itself otherwise.
_INFO = "$JS.API.INFO"
_MANY_ANSWERS = ("$JS.API.DIRECT.GET.", "$JS.API.CONSUMER.MSG.NEXT.")

Spoken = Mapping[str, tuple[Iterable[str], Iterable[str]]]  # user -> what it says, what it hears


@dataclass(frozen=True, slots=True, order=True)
class _Crossing:
    """One subject that leaves an account (`source`) for another; a service takes requests."""

    kind: str
    subject: str
    source: str
    target: str


def account_of(user: str, operator: str) -> str:
    """Return the account a user belongs to."""
    return STORE if user == operator else user


def accounts(
    spoken: Spoken, users: Mapping[str, dict[str, Any]], operator: str
) -> dict[str, dict[str, Any]]:
    """Build the `accounts` section: each user's account, with what it exports and imports."""
    found: dict[str, dict[str, Any]] = {
        account_of(user, operator): {"users": [users[user]]} for user in spoken
    }
    found[STORE]["jetstream"] = "enabled"
    exports: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for each in sorted(_crossings(spoken, operator)):
        exports[each.source, each.kind, each.subject].add(each.target)
        imports = found[each.target].setdefault("imports", [])
        imports.append({each.kind: {"account": each.source, "subject": each.subject}})
    for (source, kind, subject), targets in exports.items():
        export = {kind: subject, "accounts": sorted(targets)}
        if kind == "service" and _has_many_answers(subject):
            export["response_type"] = "stream"
        found[source].setdefault("exports", []).append(export)
    return found


def overlap(one: str, other: str) -> str | None:
    """Return the pattern of the subjects that both patterns match; None where there are none."""
    left, right, common = one.split("."), other.split("."), list[str]()
    for place, (a, b) in enumerate(zip(left, right, strict=False)):
        if a == ">":
            return ".".join(common + right[place:])
        if b == ">":
            return ".".join(common + left[place:])
        if "*" not in (a, b) and a != b:
            return None
        common.append(b if a == "*" else a)
    return ".".join(common) if len(left) == len(right) else None


def _crossings(spoken: Spoken, operator: str) -> set[_Crossing]:
    found: set[_Crossing] = set()
    for user, (says, hears) in spoken.items():
        if user != operator:
            stored = [each for each in says if each.startswith(_STORED)]
            repeated = [each for each in hears if each.startswith(_REPEATED)]
            found.update(_Crossing("service", each, STORE, user) for each in (_INFO, *stored))
            found.update(_Crossing("stream", each, STORE, user) for each in repeated)
        for other in spoken:
            if other != user:
                found.update(_between(user, other, spoken, operator))
    return found


def _between(user: str, other: str, spoken: Spoken, operator: str) -> Iterator[_Crossing]:
    """Yield what one user says and another hears.

    Streams that two accounts import from each other are a cycle, which the server refuses: one of
    the two hears the other as a service, which nobody answers.
    """
    own, theirs = account_of(user, operator), account_of(other, operator)
    back = set(_heard_of(spoken[other][0], spoken[user][1]))
    for subject in _heard_of(spoken[user][0], spoken[other][1]):
        if subject in back and user < other:
            yield _Crossing("service", subject, theirs, own)
        else:
            yield _Crossing("stream", subject, own, theirs)


def _heard_of(says: Iterable[str], hears: Iterable[str]) -> Iterator[str]:
    for said in says:
        for heard in hears:
            if (subject := overlap(said, heard)) is not None:
                yield subject


def _has_many_answers(subject: str) -> bool:
    """Whether a request there is answered by several messages: not the look-up of one entry."""
    return subject.startswith(_MANY_ANSWERS) and not subject.endswith(".>")
