"""What each role of an admin key may do: one table, and deny whatever is not in it. Pure."""

from typing import Literal, get_args

from toolbus_common.config import Role

Right = Literal["read", "budgets", "approvals", "admins", "decide", "keys", "declare", "appoint"]

ROLES: tuple[Role, ...] = get_args(Role)
RIGHTS: dict[Right, str] = {
    "read": "see what is declared, without secrets",
    "budgets": "see what is spent and held",
    "approvals": "see the calls that wait for a person, with their arguments",
    "admins": "see who has an admin key",
    "decide": "approve and reject calls",
    "keys": "make, change, rotate and revoke keys of agents",
    "declare": "change everything else that is declared, and apply the whole",
    "appoint": "make and revoke admin keys",
}
_MAY: dict[str, frozenset[Right]] = {
    "viewer": frozenset({"read", "budgets"}),
    "auditor": frozenset({"read", "budgets", "approvals", "admins"}),
    "operator": frozenset({"read", "budgets", "approvals", "decide", "keys"}),
    "admin": frozenset(get_args(Right)),
}


def may(role: str, right: Right) -> bool:
    """Whether a role has a right; an unknown role has none."""
    return right in _MAY.get(role, frozenset())


def who_may(right: Right) -> list[str]:
    """The roles that have a right."""
    return [role for role in ROLES if may(role, right)]
