"""Rights of each administrator role. A right that the table does not list is denied (no I/O)."""

from typing import Literal, get_args

from toolbus_common.config import Role

Right = Literal[
    "read", "budgets", "calls", "approvals", "admins", "audit", "decide", "keys", "purge",
    "hold", "erase",
    "declare",
    "appoint",
]  # fmt: skip

ROLES: tuple[Role, ...] = get_args(Role)
RIGHTS: dict[Right, str] = {
    "read": "see the configuration, without secrets, and the state of services and servers",
    "budgets": "see budgets, spending and the coverage of guards",
    "calls": "see calls as they happen, without arguments and results",
    "approvals": "see pending approvals, with arguments",
    "admins": "see admin keys",
    "audit": "query and export recorded events, with personal data",
    "decide": "approve and reject calls and definitions, cancel runs of agent mode, and reset what "
    "runs have read",
    "keys": "create, change, rotate and revoke keys of clients",
    "purge": "remove cached responses of models",
    "hold": "place and remove legal holds on the events of a customer",
    "erase": "erase the names and content of a person in recorded events",
    "declare": "change the rest of the configuration, and apply a whole one",
    "appoint": "create and revoke admin keys",
}
_MAY: dict[str, frozenset[Right]] = {
    "viewer": frozenset({"read", "budgets", "calls"}),
    "auditor": frozenset({"read", "budgets", "calls", "approvals", "admins", "audit"}),
    "operator": frozenset({"read", "budgets", "calls", "approvals", "decide", "keys", "purge"}),
    "admin": frozenset(get_args(Right)),
}


def may(role: str, right: Right) -> bool:
    """Return whether a role has a right. An unknown role has no rights."""
    return right in _MAY.get(role, frozenset())


def who_may(right: Right) -> list[str]:
    """Return the roles that have a right."""
    return [role for role in ROLES if may(role, right)]
