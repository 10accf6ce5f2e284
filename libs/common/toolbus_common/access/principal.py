"""A key with everything above it: what it may use, until when, and who pays. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from toolbus_common.access.oauth_scopes import covered
from toolbus_common.access.tool_patterns import SEPARATOR, granted
from toolbus_common.config import (
    Access,
    Configuration,
    Content,
    Environment,
    Group,
    Key,
    KeyTerms,
    Level,
    Patterns,
    Server,
    User,
)
from toolbus_common.config.access.expiry import ends_at
from toolbus_common.contracts.events.base import DEFAULT_CUSTOMER
from toolbus_common.privacy.content_policy import strictest

NEVER = float("inf")
NOTHING: Patterns = ()
_UNKNOWN = Group(tools=NOTHING)
_NOTHING_DECLARED = Configuration()
MOST_PEOPLE = 100_000  # remembered at once


class Person(Key):
    """Somebody who signed in: what a rule of `access` grants, under the name of the user.

    One who is not declared is a user with nothing of its own.
    """


def person_of(access: Access, user: str) -> Person:
    """The person as a key."""
    terms = {field: getattr(access, field) for field in KeyTerms.model_fields}
    return Person(**{**terms, "user": user})


@dataclass(frozen=True, slots=True)
class EffectiveGrants:
    """What may be used: what every one of `grants` covers and `denials` does not."""

    grants: tuple[Patterns, ...]
    denials: Patterns = ()

    def cover(self, name: str) -> bool:
        """Whether a full name (`server__name` or `server__uri`) is within."""
        return all(granted(patterns, name) for patterns in self.grants) and not self.deny(name)

    def deny(self, name: str) -> bool:
        """Whether a full name is denied, whatever grants it."""
        return bool(self.denials) and granted(self.denials, name)

    def narrowed(self, narrower: Iterable[Patterns]) -> "EffectiveGrants":
        """The same, within further grants: they can only take away."""
        return replace(self, grants=(*self.grants, *narrower))


@dataclass(frozen=True, slots=True)
class Principal:
    """One key's levels, from the key up, each with its name as users see it (`team:support`).

    `own` is the key itself, under the name `key`. `customer` is who pays; `ends` is the second
    since the epoch from which the key opens nothing. `whole` is there where an access token is for
    less than its holder may: it is what the holder may, and `token_scope` what the token is for.
    """

    key: str
    own: Key
    levels: tuple[tuple[str, Level], ...]
    bounds: EffectiveGrants
    customer: str
    ends: float
    declared: Configuration = field(default=_NOTHING_DECLARED, compare=False, repr=False)
    whole: "Principal | None" = field(default=None, compare=False, repr=False)
    token_scope: str = ""

    @property
    def seen(self) -> EffectiveGrants:
        """What is listed: also what another access token of the same person is needed for."""
        return (self.whole or self).bounds

    @property
    def environment(self) -> str:
        """The nearest level's environment; empty when none is declared."""
        return next((level.environment for _, level in self.levels if level.environment), "")

    @property
    def content(self) -> Content:
        """How much of a program's text is recorded."""
        return self.recording("")[0]

    def recording(self, server: str) -> tuple[Content, Content]:
        """How much is recorded of the arguments and of the results of calls to a server."""
        bounds: list[Level | Environment | Server] = [level for _, level in self.levels]
        bounds += [
            each
            for each in (
                self.declared.environments.get(self.environment),
                self.declared.servers.get(server),
            )
            if each is not None
        ]
        return (
            strictest(each.content for each in bounds),
            strictest(each.result_content for each in bounds),
        )

    @property
    def strict(self) -> bool:
        """Return whether a level wants arguments to fit their schema."""
        return any(level.validation == "strict" for _, level in self.levels)

    @property
    def code_mode(self) -> bool | None:
        """Whether the nearest level that says so wants tools through programs."""
        said = (level.through_programs for _, level in self.levels)
        return next((each for each in said if each is not None), None)

    def covering(self, name: str) -> str:
        """The first level that wants a person asked before this is called; empty when none."""
        return next((told for told, level in self.levels if granted(level.approve, name)), "")


class Principals:
    """The principals of keys under one declaration, each worked out when first asked for.

    One is kept while its key is the same object. Whatever is worked out from a principal therefore
    holds while the principal is the same object.
    """

    def __init__(self, declared: Configuration) -> None:
        self._declared = declared
        self._exposed = exposed(declared)
        self._kept: dict[str, Principal] = {}
        self._people: dict[str, Person] = {}
        self._scoped: dict[tuple[str, str], Principal] = {}

    def person(self, name: str, user: str) -> Principal:
        """Of somebody who signed in, `<access>:…`. Raises `KeyError` for an unknown rule."""
        found = self._people.get(name)
        if found is None:
            if len(self._people) >= MOST_PEOPLE:
                self.forget(self._people)
                self._people.clear()
            access = self._declared.access[name.partition(":")[0]]
            found = self._people[name] = person_of(access, user)
        return self.of(name, found)

    def of(self, name: str, key: Key) -> Principal:
        """A key's principal."""
        found = self._kept.get(name)
        if found is None or found.own is not key:
            found = principal_of(name, key, self._declared, self._exposed)
            self._kept[name] = found
        return found

    def scoped(self, whole: Principal, scope: str) -> Principal:
        """What is left of a principal for an access token of this scope."""
        found = self._scoped.get((whole.key, scope))
        if found is None or found.whole is not whole:
            if len(self._scoped) >= MOST_PEOPLE:
                self._scoped.clear()
            found = self._scoped[whole.key, scope] = scoped(whole, scope)
        return found

    def forget(self, names: Iterable[str]) -> None:
        """Let go of keys that changed, or are no more."""
        for name in names:
            self._kept.pop(name, None)


def principal_of(
    name: str, key: Key, declared: Configuration, outer: tuple[Patterns, ...] = ()
) -> Principal:
    """The key with its user, team and customer, within what `outer` covers.

    What the key names but nobody declared opens nothing.
    """
    team, user = declared.teams.get(key.team), declared.users.get(key.user)
    if user is None and isinstance(key, Person):
        user = User()
    levels: list[tuple[str, Level]] = [(f"key:{name}", key)]
    whole = (team is not None or not key.team) and (user is not None or not key.user)
    if user is not None:
        levels.append((f"user:{key.user}", user))
    if team is not None:
        levels.append((f"team:{key.team}", team))
    payers = {above.customer for above in (team, user) if above and above.customer}
    for payer in sorted(payers):
        customer = declared.customers.get(payer)
        whole = whole and customer is not None and len(payers) == 1
        if customer is not None:
            levels.append((f"customer:{payer}", customer))
    return Principal(
        key=name,
        own=key,
        levels=tuple(levels),
        bounds=_bounds(levels, declared).narrowed(outer) if whole else EffectiveGrants((NOTHING,)),
        customer=min(payers) if payers else DEFAULT_CUSTOMER,
        ends=min(_end(level) for _, level in levels),
        declared=declared,
    )


def scoped(whole: Principal, scope: str) -> Principal:
    """The principal within what a scope covers."""
    patterns = covered(whole.declared, scope)
    if patterns is None:
        return whole
    return replace(whole, bounds=whole.bounds.narrowed((patterns,)), whole=whole, token_scope=scope)


def exposed(declared: Configuration) -> tuple[Patterns, ...]:
    """What servers let anybody use, as one bound; none when they let everything be used."""
    servers = declared.servers.items()
    if all(server.expose == ("*",) for _, server in servers):
        return ()
    return (tuple(f"{name}{SEPARATOR}{own}" for name, server in servers for own in server.expose),)


def _bounds(levels: list[tuple[str, Level]], declared: Configuration) -> EffectiveGrants:
    grants = [_granted_by(level, declared) for _, level in levels]
    denials = [
        pattern
        for _, level in levels
        for patterns in (level.deny, *(group.deny for group in _groups(level, declared)))
        for pattern in patterns
    ]
    return EffectiveGrants(tuple(each for each in grants if each is not None), tuple(denials))


def _granted_by(level: Level, declared: Configuration) -> Patterns | None:
    """The union of a level's own patterns and its groups'; None when it sets no bound."""
    granting = [level.tools, *(group.tools for group in _groups(level, declared))]
    told = [patterns for patterns in granting if patterns is not None]
    if not told and not isinstance(level, Key):
        return None
    return tuple(pattern for patterns in told for pattern in patterns)


def _groups(level: Level, declared: Configuration) -> list[Group]:
    """A level's groups; one that is not declared grants nothing."""
    return [declared.groups.get(name, _UNKNOWN) for name in level.groups]


def _end(level: Level) -> float:
    return NEVER if level.expires is None else ends_at(level.expires)
