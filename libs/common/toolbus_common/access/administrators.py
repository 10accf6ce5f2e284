"""Administrators: people with an admin key or with an access token for administration (no I/O)."""

from dataclasses import dataclass

from toolbus_common.access.oauth_scopes import ADMINISTER
from toolbus_common.admin_api.roles import RIGHTS, Right, may, who_may
from toolbus_common.config import Admin, Role
from toolbus_common.contracts.queries.identity import Bearer
from toolbus_common.errors import ForbiddenError, InsufficientScopeError


@dataclass(frozen=True, slots=True)
class Administrator:
    """An administrator. `by` is the name that events record.

    A signed-in user is identified by `key` and `user`, as in the user's tool calls. `scope` is the
    scope of the user's access token. Any scope other than `admin` limits the administrator to the
    rights of a viewer.
    """

    name: str
    by: str
    role: Role
    key: str = ""
    user: str = ""
    scope: str = ADMINISTER

    @property
    def rights(self) -> list[Right]:
        """The rights that both the role and the token's scope permit."""
        return [right for right in RIGHTS if may(self.role, right) and self._lets(right)]

    def check(self, right: Right | None) -> None:
        """Check that this administrator has a right.

        Raises:
            InsufficientScopeError: the role has the right, but the access token's scope does not.
            ForbiddenError: the role does not have the right.

        """
        if right is None:
            return
        if not may(self.role, right):
            raise ForbiddenError(
                f"'{self.name}' has the role {self.role}, which has no right to "
                f"{RIGHTS[right]}; ask an "
                f"administrator with the role {' or '.join(who_may(right))}."
            )
        if not self._lets(right):
            raise InsufficientScopeError(
                f"The scope of this access token does not permit its client to {RIGHTS[right]}; "
                f"sign in again with the scope '{ADMINISTER}'.",
                scope=ADMINISTER,
            )

    def _lets(self, right: Right) -> bool:
        return ADMINISTER in self.scope.split() or may("viewer", right)


def of_key(name: str, admin: Admin) -> Administrator:
    """Return the administrator that holds an admin key."""
    return Administrator(name, f"admin:{name}", admin.role)


def of_person(bearer: Bearer, role: Role) -> Administrator:
    """Return the administrator for a person or machine that signed in."""
    user = f"user:{bearer.user}"
    return Administrator(bearer.user, user, role, bearer.name, user, bearer.scope)
