"""A key with its hierarchy (user, team, customer): its grants, its expiry, and who pays. Pure."""

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
MAX_PEOPLE = 100_000  # cached at once


class Person(Key):
    """A signed-in user as a key: the grants of an access rule, under the user's name.

    A user without a configuration entry has no limits of its own.
    """


def person_of(access: Access, user: str) -> Person:
    """Return the user as a key."""
    terms = {field: getattr(access, field) for field in KeyTerms.model_fields}
    return Person(**{**terms, "user": user})


@dataclass(frozen=True, slots=True)
class EffectiveGrants:
    """The effective grants: names that all of `grants` match and `denials` do not."""

    grants: tuple[Patterns, ...]
    denials: Patterns = ()

    def cover(self, name: str) -> bool:
        """Return whether a full name (`server__name` or `server__uri`) is granted."""
        return all(granted(patterns, name) for patterns in self.grants) and not self.deny(name)

    def deny(self, name: str) -> bool:
        """Return whether a full name is denied, independent of the grants."""
        return bool(self.denials) and granted(self.denials, name)

    def narrowed(self, restriction: Iterable[Patterns]) -> "EffectiveGrants":
        """Return these grants with further restrictions: they can only remove names."""
        return replace(self, grants=(*self.grants, *restriction))


@dataclass(frozen=True, slots=True)
class Principal:
    """A key and its levels, from the key up, each with its name in messages (`team:support`).

    `own` is the key itself, `key` its name. `customer` pays; `ends` (seconds since the epoch) is
    when access expires. If an access token restricts its holder, `whole` is the unrestricted
    principal and `token_scope` the token's scope.
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
        """The grants for lists, which also contain tools that need another access token."""
        return (self.whole or self).bounds

    @property
    def environment(self) -> str:
        """The environment of the nearest level that has one; else empty."""
        return next((level.environment for _, level in self.levels if level.environment), "")

    @property
    def content(self) -> Content:
        """How much of a program's text is recorded."""
        return self.recording("")[0]

    def recording(self, server: str) -> tuple[Content, Content]:
        """Return how much of the arguments and of the results of a server's calls is recorded."""
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
        """Whether a level requires arguments to match their schema."""
        return any(level.validation == "strict" for _, level in self.levels)

    @property
    def code_mode(self) -> bool | None:
        """Whether tools are used through programs, by the nearest level that sets it."""
        values = (level.through_programs for _, level in self.levels)
        return next((each for each in values if each is not None), None)

    def covering(self, name: str) -> str:
        """Return the first level that requires approval of this call; empty if no level does."""
        return next((level for level, each in self.levels if granted(each.approve, name)), "")


class Principals:
    """Cache of the principals of one configuration, each computed at its first use.

    As long as a key is unchanged, its principal is the same object. A value derived from a
    principal can therefore be cached under the principal's identity.
    """

    def __init__(self, configuration: Configuration) -> None:
        self._declared = configuration
        self._exposed = exposed(configuration)
        self._cached: dict[str, Principal] = {}
        self._people: dict[str, Person] = {}
        self._scoped: dict[tuple[str, str], Principal] = {}

    def person(self, name: str, user: str) -> Principal:
        """Return the principal of a signed-in user, `<access>:…`. Raises `KeyError`."""
        found = self._people.get(name)
        if found is None:
            if len(self._people) >= MAX_PEOPLE:
                self.forget(self._people)
                self._people.clear()
            access = self._declared.access[name.partition(":")[0]]
            found = self._people[name] = person_of(access, user)
        return self.of(name, found)

    def of(self, name: str, key: Key) -> Principal:
        """Return the principal of a key."""
        found = self._cached.get(name)
        if found is None or found.own is not key:
            found = principal_of(name, key, self._declared, self._exposed)
            self._cached[name] = found
        return found

    def scoped(self, whole: Principal, scope: str) -> Principal:
        """Return a principal restricted to an access token's scope."""
        found = self._scoped.get((whole.key, scope))
        if found is None or found.whole is not whole:
            if len(self._scoped) >= MAX_PEOPLE:
                self._scoped.clear()
            found = self._scoped[whole.key, scope] = scoped(whole, scope)
        return found

    def forget(self, names: Iterable[str]) -> None:
        """Remove changed or deleted keys from the cache."""
        for name in names:
            self._cached.pop(name, None)


def principal_of(
    name: str, key: Key, configuration: Configuration, outer: tuple[Patterns, ...] = ()
) -> Principal:
    """Return the key's principal with its user, team and customer, restricted to `outer`.

    If its user, team or customer does not exist, the key has no access.
    """
    team, user = configuration.teams.get(key.team), configuration.users.get(key.user)
    if user is None and isinstance(key, Person):
        user = User()
    levels: list[tuple[str, Level]] = [(f"key:{name}", key)]
    complete = (team is not None or not key.team) and (user is not None or not key.user)
    if user is not None:
        levels.append((f"user:{key.user}", user))
    if team is not None:
        levels.append((f"team:{key.team}", team))
    payers = {above.customer for above in (team, user) if above and above.customer}
    for payer in sorted(payers):
        customer = configuration.customers.get(payer)
        complete = complete and customer is not None and len(payers) == 1
        if customer is not None:
            levels.append((f"customer:{payer}", customer))
    return Principal(
        key=name,
        own=key,
        levels=tuple(levels),
        bounds=(
            _grants(levels, configuration).narrowed(outer)
            if complete
            else EffectiveGrants((NOTHING,))
        ),
        customer=min(payers) if payers else DEFAULT_CUSTOMER,
        ends=min(NEVER if level.expires is None else ends_at(level.expires) for _, level in levels),
        declared=configuration,
    )


def scoped(whole: Principal, scope: str) -> Principal:
    """Return the principal restricted to what a scope grants."""
    patterns = covered(whole.declared, scope)
    if patterns is None:
        return whole
    return replace(whole, bounds=whole.bounds.narrowed((patterns,)), whole=whole, token_scope=scope)


def exposed(configuration: Configuration) -> tuple[Patterns, ...]:
    """Return what servers expose, as one restriction; empty if they expose everything."""
    servers = configuration.servers.items()
    if all(server.expose == ("*",) for _, server in servers):
        return ()
    return (tuple(f"{name}{SEPARATOR}{own}" for name, server in servers for own in server.expose),)


def _grants(levels: list[tuple[str, Level]], configuration: Configuration) -> EffectiveGrants:
    grants = [_granted_by(level, configuration) for _, level in levels]
    denials = [
        pattern
        for _, level in levels
        for patterns in (level.deny, *(group.deny for group in _groups(level, configuration)))
        for pattern in patterns
    ]
    return EffectiveGrants(tuple(each for each in grants if each is not None), tuple(denials))


def _granted_by(level: Level, configuration: Configuration) -> Patterns | None:
    """Return the union of a level's patterns and its groups'; None for no restriction."""
    granting = [level.tools, *(group.tools for group in _groups(level, configuration))]
    granted_sets = [patterns for patterns in granting if patterns is not None]
    if not granted_sets and not isinstance(level, Key):
        return None
    return tuple(pattern for patterns in granted_sets for pattern in patterns)


def _groups(level: Level, configuration: Configuration) -> list[Group]:
    """Return a level's groups; an unknown group grants nothing."""
    return [configuration.groups.get(name, _UNKNOWN) for name in level.groups]
