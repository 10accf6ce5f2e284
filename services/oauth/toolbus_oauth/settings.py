"""Settings of the oauth service."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from toolbus_common.settings import Settings as CommonSettings


class Settings(CommonSettings):
    """Settings of oauth, in addition to the settings of every service.

    Replicas on several machines need the same key files. An empty file setting selects a file in
    `state_dir`.

    Attributes:
        public_url: URL at which browsers and agents reach the gateway; the issuer of every token.
        oauth_key_file: File with the 32-byte key that encrypts stored records, cookies and refresh
            tokens; default: `oauth.key`.
        oauth_signing_file: File with the keys that sign tokens; default: `oauth-signing.json`.
        oauth_client_file: File with the keys with which Toolbus authenticates to other
            authorization servers; default: `oauth-client.json`.
        oauth_client_document: URL of the client metadata document of Toolbus; default:
            `/oauth/client.json` of this gateway if `public_url` is https.
        oauth_identity_file: File with the keys that sign caller identity headers; default:
            `oauth-identity.json`.
        oauth_vault_key: Secret reference of the master key that encrypts upstream tokens.
        oauth_vault_file: File with that master key, if there is no reference; default:
            `oauth-vault.key`.
        oauth_earlier_vaults: Files and references of earlier master keys, separated by spaces.
        oauth_registration: Whether any program may register itself as a client.
        oauth_clients: Host patterns (`*`), separated by spaces, whose client documents are
            accepted; empty accepts every host.
        dpop_nonce: Whether DPoP proofs must contain a nonce that this server issued.
        access_seconds: Lifetime of access tokens.
        grant_days: Lifetime of grants.
        session_seconds: Lifetime of browser sessions.

    """

    public_url: str = ""
    oauth_key_file: str = ""
    oauth_signing_file: str = ""
    oauth_client_file: str = ""
    oauth_client_document: str = ""
    oauth_identity_file: str = ""
    oauth_vault_key: str = ""
    oauth_vault_file: str = ""
    oauth_earlier_vaults: str = ""
    oauth_registration: bool = True
    oauth_clients: str = ""
    dpop_nonce: bool = False
    access_seconds: float = Field(default=3600.0, ge=60, le=86_400)
    grant_days: float = Field(default=30.0, gt=0, le=400)
    session_seconds: float = Field(default=8 * 3600.0, ge=60)

    @property
    def issuer(self) -> str:
        """The issuer of tokens: `public_url` without a trailing slash."""
        return self.public_url.rstrip("/")

    @property
    def token_endpoint(self) -> str:
        """The URL of the token endpoint."""
        return f"{self.issuer}/oauth/token"

    @property
    def oauth_key(self) -> Path:
        """The file of the encryption key."""
        return Path(self.oauth_key_file or self.state_dir / "oauth.key")

    @property
    def oauth_signing(self) -> Path:
        """The file of the token signing keys."""
        return Path(self.oauth_signing_file or self.state_dir / "oauth-signing.json")

    @property
    def client_keys(self) -> Path:
        """The file of the keys with which Toolbus authenticates as a client."""
        return Path(self.oauth_client_file or self.state_dir / "oauth-client.json")

    @property
    def identity_keys(self) -> Path:
        """The file of the keys that sign caller identity headers."""
        return Path(self.oauth_identity_file or self.state_dir / "oauth-identity.json")

    @property
    def client_document(self) -> str:
        """The URL of the client metadata document; empty without a setting or an https URL."""
        ours = f"{self.issuer}/oauth/client.json" if self.issuer.startswith("https://") else ""
        return self.oauth_client_document or ours

    @property
    def vault_file(self) -> Path:
        """The file with the master key of upstream tokens; unused with `oauth_vault_key`."""
        return Path(self.oauth_vault_file or self.state_dir / "oauth-vault.key")

    @property
    def earlier_vaults(self) -> list[str]:
        """Files and references of earlier master keys."""
        return self.oauth_earlier_vaults.split()

    @model_validator(mode="after")
    def _has_one_vault(self) -> Self:
        if self.oauth_vault_key and self.oauth_vault_file:
            raise ValueError(
                "TOOLBUS_OAUTH_VAULT_KEY and TOOLBUS_OAUTH_VAULT_FILE both set the master key; "
                "keep one, and add the other to TOOLBUS_OAUTH_EARLIER_VAULTS if it was used before"
            )
        return self
