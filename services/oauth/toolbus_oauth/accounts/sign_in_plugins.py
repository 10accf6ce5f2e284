"""The question to plugins whether a person may sign in, at the point `on_login`."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from toolbus_common.access.principal import person_of, principal_of
from toolbus_common.config import Configuration
from toolbus_common.plugins.decisions import Decision, refusal_of
from toolbus_common.plugins.requests import PluginRequests
from toolbus_oauth.accounts.access_rules import matching_rule
from toolbus_oauth.storage.records import Person


@dataclass(frozen=True, slots=True)
class SignInPlugins:
    """The plugins that are asked about sign-ins."""

    requests: PluginRequests
    config: Callable[[], Configuration]

    async def refusal(self, person: Person) -> str:
        """Return why a plugin refused the sign-in of a person, or nothing."""
        if not self.requests.declared:
            return ""
        config = self.config()
        access = matching_rule(config, person.issuer, person.claims)
        customer = ""
        if access is not None:
            own = person_of(config.access[access], person.user)
            customer = principal_of(access, own, config).customer
        decision = Decision("on_login", "sign-in", f"login.{secrets.token_hex(12)}", customer)
        content = {"person": person.user, "provider": person.issuer, "access": access or ""}
        return await refusal_of(self.requests, decision, content)
