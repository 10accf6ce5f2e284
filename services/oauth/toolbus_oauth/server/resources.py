"""What tokens can be made for: the endpoint of all servers, that of each, the administration."""

from dataclasses import dataclass

from toolbus_common.access.config_snapshot import ConfigProjection
from toolbus_common.access.oauth_scopes import ADMINISTRATION, appoints, offered
from toolbus_oauth.server import scopes as scoping
from toolbus_oauth.storage.records import Client
from toolbus_oauth.web.errors import OAuthError


@dataclass(frozen=True, slots=True)
class Resources:
    """The endpoints as RFC 8707 names them."""

    issuer: str
    directory: ConfigProjection

    def administers(self, uri: str) -> bool:
        """Whether this is the administration."""
        return uri == f"{self.issuer}/api"

    def given(self, client: Client, resource: str, asked: str) -> str:
        """The scopes a client is given there. Raises `OAuthError`."""
        declared = self.directory.now.declaration
        return scoping.given(declared, client, asked, administration=self.administers(resource))

    def kept(self, resource: str, told: str) -> str:
        """What of a token's scope counts there; empty for none."""
        declared = self.directory.now.declaration
        return scoping.kept(declared, told, administration=self.administers(resource))

    def scopes(self) -> list[str]:
        """All there are."""
        declared = self.directory.now.declaration
        administration = ADMINISTRATION if appoints(declared) else ()
        return [*offered(declared), *administration]

    def known(self, uri: str) -> bool:
        """Whether this is an endpoint of ours, byte for byte."""
        if self.administers(uri):
            return appoints(self.directory.now.declaration)
        whole = f"{self.issuer}/mcp"
        server = uri.removeprefix(f"{whole}/")
        return uri == whole or (server != uri and self.directory.now.serves(server))

    def meant(self, uri: str) -> str:
        """The endpoint a client means; without a word, that of all. Raises `OAuthError`."""
        if not uri:
            return f"{self.issuer}/mcp"
        if not self.known(uri):
            raise OAuthError("invalid_target", "There is no such resource here.")
        return uri
