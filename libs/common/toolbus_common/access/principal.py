"""A key with its hierarchy (user, team, customer): grants, expiry, paying customer (no I/O)."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from toolbus_common.access.oauth_scopes import Kind, covered, covered_models
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
    Provider,
    Server,
    User,
)
from toolbus_common.config.access.expiry import ends_at
from toolbus_common.contracts.events.base import DEFAULT_CUSTOMER
from toolbus_common.privacy.content_policy import strictest

NEVER = float("inf")
NOTHING: Patterns = ()
_UNKNOWN = Group(tools=NOTHING, models=NOTHING)
_NOTHING_DECLARED = Configuration()
MAX_PEOPLE = 100_000  # cached at once


class Person(Key):
    """A signed-in user in the form of a key, with the grants of an access rule.

    A user without an entry in `users` has no individual limits.
    """


def person_of(access: Access, user: str) -> Person:
    """Return a signed-in user as a key with the terms of an access rule."""
    terms = {field: getattr(access, field) for field in KeyTerms.model_fields}
    return Person(**{**terms, "user": user})


@dataclass(frozen=True, slots=True)
class EffectiveGrants:
    """The effective grants. A name must match every element of `grants`, and not `denials`."""

    grants: tuple[Patterns, ...]
    denials: Patterns = ()

    def cover(self, name: str) -> bool:
        """Return whether a full name is granted and not denied.

        A full name has the form `server__name` or `server__uri`.
        """
        return all(granted(patterns, name) for patterns in self.grants) and not self.deny(name)

    def deny(self, name: str) -> bool:
        """Return whether a full name is denied, independent of the grants."""
        return bool(self.denials) and granted(self.denials, name)

    def narrowed(self, restriction: Iterable[Patterns]) -> "EffectiveGrants":
        """Return these grants with additional restrictions. The result never grants more names."""
        return replace(self, grants=(*self.grants, *restriction))


@dataclass(frozen=True, slots=True)
class Principal:
    """A key and its levels, in the order key, user, team, customer.

    Each level has its name in messages (`team:support`). `key` is the name of the key and `own` is
    the key itself. `customer` is the customer that pays. `ends` is the time at which access
    expires, in seconds since the epoch. If an access token restricts the user, `whole` is the
    unrestricted principal and `token_scope` is the scope of the token. The name of a model must
    match every element of `models` (`toolbus_common.access.model_grants`).
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
    models: tuple[Patterns, ...] = (NOTHING,)

    @property
    def seen(self) -> EffectiveGrants:
        """The grants for lists. Lists also show tools that need another access token."""
        return (self.whole or self).bounds

    @property
    def environment(self) -> str:
        """The environment of the lowest level that sets an environment; empty if no level does."""
        return next((level.environment for _, level in self.levels if level.environment), "")

    @property
    def level_names(self) -> dict[str, str]:
        """The name of each level by its kind, such as `team`."""
        kinds = (level.partition(":") for level, _ in reversed(self.levels))
        return {kind: name for kind, _, name in kinds}

    @property
    def content(self) -> Content:
        """The part of a program's text that is recorded."""
        return self.recording("")[0]

    def recording(self, server: str) -> tuple[Content, Content]:
        """Return how much is recorded of the arguments and of the results of a server's calls.

        `server` is the name of a server or of a provider.
        """
        bounds: list[Level | Environment | Server | Provider] = [level for _, level in self.levels]
        bounds += [
            each
            for each in (
                self.declared.environments.get(self.environment),
                self.declared.servers.get(server) or self.declared.providers.get(server),
            )
            if each is not None
        ]
        return (
            strictest(each.content for each in bounds),
            strictest(each.result_content for each in bounds),
        )

    @property
    def strict(self) -> bool:
        """Whether any level rejects arguments that do not match the tool's schema."""
        return any(level.validation == "strict" for _, level in self.levels)

    @property
    def code_mode(self) -> bool | None:
        """Whether tools are used only through programs; None if no level sets it.

        The setting of the lowest level applies.
        """
        values = (level.through_programs for _, level in self.levels)
        return next((each for each in values if each is not None), None)

    def covering(self, name: str) -> str:
        """Return the lowest level that requires approval of this call; empty if no level does."""
        return next((level for level, each in self.levels if granted(each.approve, name)), "")


class Principals:
    """Cache of the principals of one configuration. A principal is computed at its first use.

    As long as a key is unchanged, its principal is the same object. A value derived from a
    principal can therefore be cached by the identity of the principal.
    """

    def __init__(self, configuration: Configuration) -> None:
        self._declared = configuration
        self._exposed = exposed(configuration)
        self._cached: dict[str, Principal] = {}
        self._people: dict[str, Person] = {}
        self._scoped: dict[tuple[str, str], Principal] = {}

    def person(self, name: str, user: str) -> Principal:
        """Return the principal of a signed-in user. Raises `KeyError` without an access rule.

        `name` begins with the name of the access rule (`<access>:…`).
        """
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
        models=_model_grants(levels, configuration) if complete else (NOTHING,),
    )


def scoped(whole: Principal, scope: str) -> Principal:
    """Return the principal restricted to the names that a token's scope grants.

    A scope of groups grants only the models of these groups; most groups have none.
    """
    patterns = covered(whole.declared, scope)
    if patterns is None:
        return whole
    return replace(
        whole,
        bounds=whole.bounds.narrowed((patterns,)),
        models=(*whole.models, covered_models(whole.declared, scope)),
        whole=whole,
        token_scope=scope,
    )


def exposed(configuration: Configuration) -> tuple[Patterns, ...]:
    """Return the tools that servers expose, as one restriction; empty if all tools are exposed."""
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


def _model_grants(
    levels: list[tuple[str, Level]], configuration: Configuration
) -> tuple[Patterns, ...]:
    grants = (_granted_by(level, configuration, "models") for _, level in levels)
    return tuple(each for each in grants if each is not None)


def _granted_by(
    level: Level, configuration: Configuration, kind: Kind = "tools"
) -> Patterns | None:
    """Return the patterns of a level and of its groups; None for no restriction."""
    sources: list[Level | Group] = [level, *_groups(level, configuration)]
    granting: list[Patterns | None] = [getattr(each, kind) for each in sources]
    granted_sets = [patterns for patterns in granting if patterns is not None]
    if not granted_sets and not isinstance(level, Key):
        return None
    return tuple(pattern for patterns in granted_sets for pattern in patterns)


def _groups(level: Level, configuration: Configuration) -> list[Group]:
    """Return the groups of a level. An unknown group grants nothing."""
    return [configuration.groups.get(name, _UNKNOWN) for name in level.groups]
