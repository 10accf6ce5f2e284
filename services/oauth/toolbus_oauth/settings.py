"""What oauth is told by its environment."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from toolbus_common.settings import Settings as CommonSettings


class Settings(CommonSettings):
    """The shared settings, and oauth's own.

    `public_url` is how browsers and agents reach the gateway; it is the issuer of every token.
    `oauth_key_file` holds the 32 bytes that seal what is kept and carried, `oauth_signing_file`
    the keys tokens are signed with; empty: `oauth.key` and `oauth-signing.json` in `state_dir`.
    Replicas on several machines need the same files. With `oauth_registration` any program may
    register itself as a client. `oauth_clients` are the hosts, with `*`, whose client documents
    are taken; empty: any. Access tokens last `access_seconds`, what a person allowed a client
    `grant_days`, a browser's sign-in `session_seconds`.
    `oauth_client_file` holds the keys Toolbus shows itself with to other authorization servers,
    `oauth_client_document` is where they find what it is; empty: `/oauth/client.json` here, if
    `public_url` is https. `oauth_identity_file` holds the keys servers are told with who calls;
    empty: `oauth-identity.json` in `state_dir`. The master key of tokens for servers is a
    reference, `oauth_vault_key`, or in the file `oauth_vault_file` (empty: `oauth-vault.key` in
    `state_dir`); `oauth_earlier_vaults` names files and references of those used before, by spaces.
    With `dpop_nonce` proofs of keys must be made with a nonce that was asked for before.
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
        """Who issues tokens."""
        return self.public_url.rstrip("/")

    @property
    def token_endpoint(self) -> str:
        """Where clients get tokens."""
        return f"{self.issuer}/oauth/token"

    @property
    def oauth_key(self) -> Path:
        """Where the sealing key is."""
        return Path(self.oauth_key_file or self.state_dir / "oauth.key")

    @property
    def oauth_signing(self) -> Path:
        """Where the signing keys are."""
        return Path(self.oauth_signing_file or self.state_dir / "oauth-signing.json")

    @property
    def client_keys(self) -> Path:
        """Where the keys are that Toolbus shows itself with."""
        return Path(self.oauth_client_file or self.state_dir / "oauth-client.json")

    @property
    def identity_keys(self) -> Path:
        """Where the keys are that servers are told with who calls."""
        return Path(self.oauth_identity_file or self.state_dir / "oauth-identity.json")

    @property
    def client_document(self) -> str:
        """Where others find what Toolbus is as a client; empty where they cannot."""
        ours = f"{self.issuer}/oauth/client.json" if self.issuer.startswith("https://") else ""
        return self.oauth_client_document or ours

    @property
    def vault_file(self) -> Path:
        """Where the master key is of tokens for servers, unless it is a reference."""
        return Path(self.oauth_vault_file or self.state_dir / "oauth-vault.key")

    @property
    def earlier_vaults(self) -> list[str]:
        """Where those are that were used before."""
        return self.oauth_earlier_vaults.split()

    @model_validator(mode="after")
    def _has_one_vault(self) -> Self:
        if self.oauth_vault_key and self.oauth_vault_file:
            raise ValueError(
                "TOOLBUS_OAUTH_VAULT_KEY and TOOLBUS_OAUTH_VAULT_FILE name two master keys; keep "
                "one, and name the other in TOOLBUS_OAUTH_EARLIER_VAULTS if it was used before"
            )
        return self
