"""OAuth scopes of access tokens: the rights of a user that a client receives (no I/O)."""

from typing import Literal

from toolbus_common.access.tool_patterns import granted
from toolbus_common.config import Configuration, Patterns

Kind = Literal["tools", "models"]

TOOLS = "tools"  # everything that the access rule grants
OF_GROUP = "tools:"  # the part that one group grants
ADMINISTER = "admin"  # all rights of the access rule's role
LOOK = "admin:read"  # the rights of a viewer
ADMINISTRATION = (ADMINISTER, LOOK)
CONSOLE_CLIENT = "toolbus-console"  # oauth knows this client without a registration
CONSOLE_REDIRECT = "/console/signed-in"


def offered(configuration: Configuration) -> list[str]:
    """Return all scopes for tools that a client can request."""
    return [
        TOOLS,
        *(f"{OF_GROUP}{name}" for name, each in configuration.groups.items() if each.scope),
    ]


def first(configuration: Configuration) -> list[str]:
    """Return the scopes for tools that a client should request at first."""
    groups = configuration.groups.items()
    return [f"{OF_GROUP}{name}" for name, each in groups if each.scope == "first"] or [TOOLS]


def administers(scope: str) -> bool:
    """Return whether tokens with this scope are for administration and never for tools."""
    return any(each in ADMINISTRATION for each in scope.split())


def appoints(configuration: Configuration) -> bool:
    """Return whether any access rule grants an administrator role."""
    return any(each.role for each in configuration.access.values())


def covered(configuration: Configuration, scope: str) -> Patterns | None:
    """Return the patterns that a scope grants; None for no restriction.

    An unknown scope grants nothing.
    """
    scopes = scope.split()
    if TOOLS in scopes:
        return None
    return tuple(pattern for each in scopes for pattern in _patterns(configuration, each))


def covered_models(configuration: Configuration, scope: str) -> Patterns:
    """Return the patterns of models that a scope of groups grants."""
    return tuple(
        pattern for each in scope.split() for pattern in _patterns(configuration, each, "models")
    )


def needed(configuration: Configuration, scope: str, name: str, kind: Kind = "tools") -> str:
    """Return the scope that a client must request to use the tool or model `name`.

    It is the present `scope` plus the scope of one group, or `tools` if no group's scope grants
    the name.
    """
    more = (
        each
        for each in offered(configuration)[1:]
        if granted(_patterns(configuration, each, kind), name)
    )
    found = next(more, None)
    return TOOLS if found is None else " ".join([*scope.split(), found])


def _patterns(configuration: Configuration, scope: str, kind: Kind = "tools") -> Patterns:
    group = configuration.groups.get(scope.removeprefix(OF_GROUP)) if OF_GROUP in scope else None
    if group is None or not group.scope:
        return ()
    return (group.tools if kind == "tools" else group.models) or ()
