"""Grants of models: the models that a principal may use (no I/O)."""

from collections.abc import Iterator

from toolbus_common.access.oauth_scopes import OF_GROUP, TOOLS
from toolbus_common.access.principal import Principal
from toolbus_common.access.tool_patterns import granted
from toolbus_common.config import Group, Key, Level, Patterns

_UNKNOWN = Group(models=())


def may_use_model(principal: Principal, name: str) -> bool:
    """Return whether a principal may use a model; `name` is an alias or `provider/model`.

    Every level that has models, or groups with models, must grant the name. A key without both
    grants no model. A principal whose team, user or customer does not exist may use no model.
    """
    return _complete(principal) and all(
        granted(patterns, name) for patterns in _limits(principal) if patterns is not None
    )


def _limits(principal: Principal) -> Iterator[Patterns | None]:
    """Yield the patterns of each level and of the token's scope; None for no limit."""
    groups = principal.declared.groups
    for _, level in principal.levels:
        yield _granted_by(level, groups)
    if principal.whole is not None and TOOLS not in principal.token_scope.split():
        names = (each.removeprefix(OF_GROUP) for each in principal.token_scope.split())
        scopes = [groups[name] for name in names if name in groups and groups[name].scope]
        yield tuple(pattern for group in scopes for pattern in group.models or ())


def _granted_by(level: Level, groups: dict[str, Group]) -> Patterns | None:
    granting = [level.models, *(groups.get(name, _UNKNOWN).models for name in level.groups)]
    granted_sets = [patterns for patterns in granting if patterns is not None]
    if not granted_sets and not isinstance(level, Key):
        return None
    return tuple(pattern for patterns in granted_sets for pattern in patterns)


def _complete(principal: Principal) -> bool:
    """Return whether every team, user and customer that the key names exists."""
    own, configuration = principal.own, principal.declared
    names = {name for name, _ in principal.levels}
    expected = {f"team:{own.team}"} if own.team else set()
    expected |= {f"user:{own.user}"} if own.user else set()
    above = (configuration.teams.get(own.team), configuration.users.get(own.user))
    payers = {f"customer:{each.customer}" for each in above if each and each.customer}
    return len(payers) <= 1 and expected | payers <= names
