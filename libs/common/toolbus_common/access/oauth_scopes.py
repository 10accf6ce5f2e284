"""Scopes of access tokens: what a client may do of all that its person may. Pure."""

from toolbus_common.access.tool_patterns import granted
from toolbus_common.config import Configuration, Patterns

TOOLS = "tools"  # all that a rule of access grants
OF_GROUP = "tools:"  # of that, what one group covers
ADMINISTER = "admin"  # as far as the rule's role goes
LOOK = "admin:read"  # of that, what a viewer may
ADMINISTRATION = (ADMINISTER, LOOK)


def offered(declared: Configuration) -> list[str]:
    """The scopes that tokens for tools can have."""
    return [TOOLS, *(f"{OF_GROUP}{name}" for name, each in declared.groups.items() if each.scope)]


def first(declared: Configuration) -> list[str]:
    """Those a client is told to begin with."""
    groups = declared.groups.items()
    return [f"{OF_GROUP}{name}" for name, each in groups if each.scope == "first"] or [TOOLS]


def administers(scope: str) -> bool:
    """Whether a token of this scope is one for the administration, and so for no tool."""
    return any(each in ADMINISTRATION for each in scope.split())


def appoints(declared: Configuration) -> bool:
    """Whether anybody who signs in can have a role."""
    return any(each.role for each in declared.access.values())


def covered(declared: Configuration, scope: str) -> Patterns | None:
    """What a scope covers; None where it bounds nothing. What is offered no longer covers none."""
    held = scope.split()
    if TOOLS in held:
        return None
    return tuple(pattern for each in held for pattern in _patterns(declared, each))


def needed(declared: Configuration, scope: str, name: str) -> str:
    """What a token of this scope must have to be good for this as well."""
    more = (each for each in offered(declared)[1:] if granted(_patterns(declared, each), name))
    found = next(more, None)
    return TOOLS if found is None else " ".join([*scope.split(), found])


def _patterns(declared: Configuration, scope: str) -> Patterns:
    group = declared.groups.get(scope.removeprefix(OF_GROUP)) if OF_GROUP in scope else None
    return (group.tools or ()) if group is not None and group.scope else ()
