"""Resources for which tokens are issued (RFC 8707): all servers, one server, administration."""

from dataclasses import dataclass

from toolbus_common.access.config_snapshot import ConfigView
from toolbus_common.access.oauth_scopes import ADMINISTRATION, appoints, offered
from toolbus_oauth.server import scopes as scoping
from toolbus_oauth.storage.records import Client
from toolbus_oauth.web.errors import OAuthError


@dataclass(frozen=True, slots=True)
class Resources:
    """Protected resources of this gateway."""

    issuer: str
    directory: ConfigView

    def administers(self, uri: str) -> bool:
        """Return whether a URI is the administration API."""
        return uri == f"{self.issuer}/api"

    def grant_scopes(self, client: Client, resource: str, requested: str) -> str:
        """Return the scopes to grant to a client at a resource. Raises `OAuthError`."""
        config = self.directory.now.configuration
        return scoping.grant_scopes(
            config, client, requested, administration=self.administers(resource)
        )

    def kept(self, resource: str, scope: str) -> str:
        """Return the scopes of a token that still exist at a resource."""
        config = self.directory.now.configuration
        return scoping.existing_scopes(config, scope, administration=self.administers(resource))

    def scopes(self) -> list[str]:
        """Return the scopes of all resources."""
        config = self.directory.now.configuration
        administration = ADMINISTRATION if appoints(config) else ()
        return [*offered(config), *administration]

    def exists(self, uri: str) -> bool:
        """Return whether a URI identifies a resource of this gateway."""
        if self.administers(uri):
            return appoints(self.directory.now.configuration)
        whole = f"{self.issuer}/mcp"
        server = uri.removeprefix(f"{whole}/")
        return uri == whole or (server != uri and self.directory.now.serves(server))

    def resolve(self, uri: str) -> str:
        """Return the requested resource; all servers if none is named. Raises `OAuthError`."""
        if not uri:
            return f"{self.issuer}/mcp"
        if not self.exists(uri):
            raise OAuthError(
                "invalid_target",
                f"The requested resource does not exist; {self.issuer}/mcp covers all servers.",
            )
        return uri
