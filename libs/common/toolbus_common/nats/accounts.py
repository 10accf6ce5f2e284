"""NATS accounts: one per service, so that no reply of the server reaches another service.

The server does not check the reply subject of a request. If all services shared one account, a
service could have one of its stored messages delivered to any subject: to another service as a
query, or into another service's bucket as an entry. With separate accounts, such a reply stays in
the account of the service that requested it. Each subject that crosses accounts is imported
individually. These subjects are derived from the same rights as the permissions.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

STORE = "TOOLBUS"  # the account of streams, buckets and the operator
_STORED = ("$JS.", "$KV.", "$O.", "tb.event.")  # subjects of streams and of the server's API
_REPEATED = "tb.kv."  # subjects on which the server republishes stored entries
# Every account imports this subject, although no user has permission to send requests to it. The
# server uses the import to detect that an account uses another account's JetStream. Without the
# import it replies to the requests itself.
_INFO = "$JS.API.INFO"
_MANY_REPLIES = ("$JS.API.DIRECT.GET.", "$JS.API.CONSUMER.MSG.NEXT.")

# User -> the subjects that it publishes, and the subjects that it subscribes to.
UserSubjects = Mapping[str, tuple[Iterable[str], Iterable[str]]]


@dataclass(frozen=True, slots=True)
class Rights:
    """The subjects that one user can publish and subscribe to. Denied subjects take precedence."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    deny_publish: tuple[str, ...] = ()
    deny_subscribe: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, order=True)
class _Crossing:
    """One subject that account `source` exports and account `target` imports.

    An export of the kind `service` is for requests.
    """

    kind: str
    subject: str
    source: str
    target: str


def account_of(user: str, operator: str) -> str:
    """Return the account that a user belongs to."""
    return STORE if user == operator else user


def accounts(
    subjects: UserSubjects, users: Mapping[str, dict[str, Any]], operator: str
) -> dict[str, dict[str, Any]]:
    """Return the `accounts` section: the account of each user, with its exports and imports."""
    found: dict[str, dict[str, Any]] = {
        account_of(user, operator): {"users": [users[user]]} for user in subjects
    }
    found[STORE]["jetstream"] = "enabled"
    exports: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for each in sorted(_crossings(subjects, operator)):
        exports[each.source, each.kind, each.subject].add(each.target)
        imports = found[each.target].setdefault("imports", [])
        imports.append({each.kind: {"account": each.source, "subject": each.subject}})
    for (source, kind, subject), targets in exports.items():
        export = {kind: subject, "accounts": sorted(targets)}
        if kind == "service" and _has_many_replies(subject):
            export["response_type"] = "stream"
        found[source].setdefault("exports", []).append(export)
    return found


def overlap(one: str, other: str) -> str | None:
    """Return the pattern of all subjects that both patterns match; None if there are none."""
    left, right, common = one.split("."), other.split("."), list[str]()
    for position, (a, b) in enumerate(zip(left, right, strict=False)):
        if a == ">":
            return ".".join(common + right[position:])
        if b == ">":
            return ".".join(common + left[position:])
        if "*" not in (a, b) and a != b:
            return None
        common.append(b if a == "*" else a)
    return ".".join(common) if len(left) == len(right) else None


def _crossings(subjects: UserSubjects, operator: str) -> set[_Crossing]:
    found: set[_Crossing] = set()
    for user, (published, subscribed) in subjects.items():
        if user != operator:
            stored = [each for each in published if each.startswith(_STORED)]
            repeated = [each for each in subscribed if each.startswith(_REPEATED)]
            found.update(_Crossing("service", each, STORE, user) for each in (_INFO, *stored))
            found.update(_Crossing("stream", each, STORE, user) for each in repeated)
        for other in subjects:
            if other != user:
                found.update(_between(user, other, subjects, operator))
    return found


def _between(user: str, other: str, subjects: UserSubjects, operator: str) -> Iterator[_Crossing]:
    """Yield the crossings for subjects that `user` publishes and `other` subscribes to.

    The server rejects a cycle of two accounts that import streams from each other. In such a pair,
    one account imports the subject as a service without responders.
    """
    own, theirs = account_of(user, operator), account_of(other, operator)
    back = set(_matching(subjects[other][0], subjects[user][1]))
    for subject in _matching(subjects[user][0], subjects[other][1]):
        if subject in back and user < other:
            yield _Crossing("service", subject, theirs, own)
        else:
            yield _Crossing("stream", subject, own, theirs)


def _matching(published: Iterable[str], subscribed: Iterable[str]) -> Iterator[str]:
    for sent in published:
        for received in subscribed:
            if (subject := overlap(sent, received)) is not None:
                yield subject


def _has_many_replies(subject: str) -> bool:
    """Return whether a request has several reply messages. Reading one entry has one reply."""
    return subject.startswith(_MANY_REPLIES) and not subject.endswith(".>")


_ANSWERS = {"max": 1, "expires": "61s"}  # a plugin answers each request once


def plugin_account(name: str) -> str:
    """Return the account of a plugin, which is also the name of its user and its seed file."""
    return f"plugin-{name}"


def with_plugins(
    configuration: dict[str, Any], hooks: Mapping[str, Iterable[str]], keys: Mapping[str, str]
) -> dict[str, Any]:
    """Return the server's configuration with an account for each plugin that uses the bus.

    `hooks` are the subjects of each plugin, and `keys` the public keys of users. A plugin can
    subscribe to its own subjects, and answer each request once. It can send nothing else.
    """
    found = {name: {**account} for name, account in configuration["accounts"].items()}
    for name, subjects in sorted(hooks.items()):
        own, account = sorted(subjects), plugin_account(name)
        permissions = {
            "publish": {"deny": [">"]},
            "subscribe": {"allow": own},
            "allow_responses": _ANSWERS,
        }
        askers = {
            subject: [each for each in configuration["accounts"] if _asks(found[each], subject)]
            for subject in own
        }
        found[account] = {
            "users": [{"nkey": keys[account], "permissions": permissions}],
            "exports": [{"service": subject, "accounts": askers[subject]} for subject in own],
        }
        for subject in own:
            imported = {"service": {"account": account, "subject": subject}}
            for asker in askers[subject]:
                found[asker]["imports"] = [*found[asker].get("imports", []), imported]
    return configuration | {"accounts": found}


def _asks(account: Mapping[str, Any], subject: str) -> bool:
    """Return whether a user of an account may publish a subject of plugins."""
    users = account.get("users", ())
    allowed = [each for user in users for each in user["permissions"]["publish"]["allow"]]
    return any(overlap(each, subject) for each in allowed)


def permissions_of(granted: Rights) -> dict[str, Any]:
    """Return the permissions of a user in the server's configuration."""
    return {
        "publish": _rule(granted.publish, granted.deny_publish),
        "subscribe": _rule(granted.subscribe, granted.deny_subscribe),
    }


def _rule(allowed: tuple[str, ...], denied: tuple[str, ...]) -> dict[str, list[str]]:
    return {"allow": list(allowed)} | ({"deny": list(denied)} if denied else {})
