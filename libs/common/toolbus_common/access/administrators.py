"""Whoever administers: the holder of an admin key, or of an access token for it. Pure."""

from dataclasses import dataclass

from toolbus_common.access.oauth_scopes import ADMINISTER
from toolbus_common.admin_api.roles import RIGHTS, Right, may, who_may
from toolbus_common.config import Admin, Role
from toolbus_common.contracts.queries.identity import Bearer
from toolbus_common.errors import ForbiddenError, InsufficientScopeError


@dataclass(frozen=True, slots=True)
class Administrator:
    """One of them. `by` is the name that is recorded.

    Of somebody who signed in, `key` and `user` are what their own calls are recorded under, and
    `scope` is what their token is for: less than all, and it goes as far as a viewer.
    """

    name: str
    by: str
    role: Role
    key: str = ""
    user: str = ""
    scope: str = ADMINISTER

    @property
    def rights(self) -> list[Right]:
        """What they may."""
        return [right for right in RIGHTS if may(self.role, right) and self._lets(right)]

    def check(self, right: Right | None) -> None:
        """Raise `ForbiddenError`, or `InsufficientScopeError` where the token is what lacks."""
        if right is None:
            return
        if not may(self.role, right):
            raise ForbiddenError(
                f"'{self.name}' is {self.role}, and may not {RIGHTS[right]}; ask somebody who is "
                f"{' or '.join(who_may(right))}."
            )
        if not self._lets(right):
            raise InsufficientScopeError(
                f"This access token does not let its client {RIGHTS[right]}; sign in again for "
                f"the scope {ADMINISTER}.",
                scope=ADMINISTER,
            )

    def _lets(self, right: Right) -> bool:
        return ADMINISTER in self.scope.split() or may("viewer", right)


def of_key(name: str, admin: Admin) -> Administrator:
    """The holder of an admin key."""
    return Administrator(name, f"admin:{name}", admin.role)


def of_person(bearer: Bearer, role: Role) -> Administrator:
    """Somebody, or a machine, that signed in."""
    user = f"user:{bearer.user}"
    return Administrator(bearer.user, user, role, bearer.name, user, bearer.scope)
