"""OAuth authorization of Toolbus at upstream servers."""

import re
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from toolbus_common.config.base import ConfigModel

_REFERENCE = re.compile(r"\$\{[a-z]+:[^{}]+\}")
_FILE = re.compile(r"~(?:/[A-Za-z0-9._-]+){2,8}")
_PROCESSES = ("command", "python", "container")
Text = Annotated[str, Field(max_length=512)]
CLIENT_CREDENTIALS, WORKLOAD, ENTERPRISE = "client_credentials", "workload", "enterprise"
ISSUED: Final = "issued"  # Toolbus issues the token itself
OF_PEOPLE = ("consent", ENTERPRISE, ISSUED)
REFERENCES = ("secret", "key", "assertion", "certificate")  # of a client: these are references
BY_KEY: Final = "private_key_jwt"  # a client authenticates by its signature
BY_AUTHORITY, BY_ITSELF = "tls_client_auth", "self_signed_tls_client_auth"
BY_CERTIFICATE = (BY_AUTHORITY, BY_ITSELF)  # RFC 8705 section 2
Method = Literal[
    "",
    "none",
    "client_secret_basic",
    "client_secret_post",
    "private_key_jwt",
    "tls_client_auth",
    "self_signed_tls_client_auth",
]


class OAuthClient(ConfigModel):
    """The registration of Toolbus at an authorization server. Credentials are references.

    `method` is the method of client authentication. If it is empty and `secret` is set, the method
    that the authorization server prefers is used. `key` is a private key in PEM form for
    `private_key_jwt`; without it Toolbus signs with its own key. If `certificate` (PEM) is set,
    `key` is the private key of the certificate. Both are then used in TLS. The certificate
    authenticates the client (`tls_client_auth`) or, with another method, binds its tokens (RFC
    8705). `assertion` is a token that the platform of the workload issues and renews. It replaces
    the signature, or it is the assertion of the grant `workload`.
    """

    id: Text = Field(min_length=1)
    secret: Text = ""
    key: Text = ""
    assertion: Text = ""
    certificate: Text = ""
    method: Method = ""

    @field_validator(*REFERENCES)
    @classmethod
    def _is_reference(cls, secret: str) -> str:
        if secret and not _REFERENCE.fullmatch(secret):
            raise ValueError("must be a reference, such as ${env:NAME}; no secret is stored here")
        return secret

    @model_validator(mode="after")
    def _has_one_signature(self) -> Self:
        if self.certificate:
            return self
        if self.key and self.method not in ("", BY_KEY):
            raise ValueError(
                f"has 'key', which needs the method {BY_KEY}; remove 'key' or 'method'"
            )
        if self.key and self.assertion:
            raise ValueError(
                "has 'key' and 'assertion', and an assertion is signed already; remove one of them"
            )
        return self

    @model_validator(mode="after")
    def _has_certificate_and_key(self) -> Self:
        if self.certificate and not self.key:
            raise ValueError("has 'certificate' without 'key'; set both, as references")
        if self.method in BY_CERTIFICATE and not self.certificate:
            raise ValueError(f"{self.method} needs a certificate and its key; set both")
        if self.method in BY_CERTIFICATE and self.secret:
            raise ValueError(f"{self.method} uses no secret; remove 'secret' or 'method'")
        return self


class ServerOAuth(ConfigModel):
    """The tokens for calls to a server, and the way to obtain them.

    `tokens` is `shared` for one token for all users, or `user` for a separate token for each user.
    `grant` is the source of tokens: `consent` of a person, the credentials of Toolbus itself
    (`client_credentials`), the assertion of the workload (`workload`), an assertion of `provider`
    (a name in `issuers`) for each user (`enterprise`), or Toolbus itself as an issuer that the
    server accepts, for each caller (`issued`, always with `tokens: user`).

    `issuer` selects the authorization server if the server names several. `clients` contains
    registrations by issuer. The credentials for one issuer are never sent to another. `scopes` are
    requested in addition to the scopes that the server requires. `resource` is the URL that tokens
    are issued for, if it is not the URL of the server.

    `listing` is the user whose token is used to list tools if each user has a separate token.
    Without `listing`, the token that expires last is used. `dpop` requires tokens bound to a key of
    Toolbus. If `dpop` is not set, such tokens are used if the authorization server supports them. A
    process receives its token in the environment variable `env`, or in the file `file` of its
    private home.
    """

    tokens: Literal["shared", "user"] = "shared"
    grant: Literal["consent", "client_credentials", "workload", "enterprise", "issued"] = "consent"
    provider: Text = ""
    issuer: Text = ""
    clients: dict[Text, OAuthClient] = Field(default_factory=dict)
    scopes: tuple[Text, ...] = ()
    listing: Text = ""
    dpop: bool | None = None
    resource: Text = ""
    env: Text = ""
    file: Text = ""

    @model_validator(mode="before")
    @classmethod
    def _issues_to_each_caller(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("grant") == ISSUED:
            return {"tokens": "user", **data}
        return data

    @field_validator("resource")
    @classmethod
    def _is_url(cls, resource: str) -> str:
        if resource and not re.fullmatch(r"https?://[^/\s?#]+[^\s#]*", resource):
            raise ValueError("must be the URL that tokens are issued for, without a fragment (#)")
        return resource

    @field_validator("env")
    @classmethod
    def _is_variable(cls, env: str) -> str:
        if env and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", env):
            raise ValueError("must be the name of a variable, such as GITHUB_TOKEN")
        return env

    @field_validator("file")
    @classmethod
    def _is_below_home(cls, file: str) -> str:
        if file and (not _FILE.fullmatch(file) or ".." in file.split("/")):
            raise ValueError(
                "must be a file in a directory of its own below the private home, such as "
                "~/.secrets/token, because no other file is in that directory"
            )
        return file

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.tokens == "user" and self.grant not in OF_PEOPLE:
            raise ValueError(
                "'tokens: user' needs 'grant: consent' (the default), 'enterprise' or 'issued'"
            )
        if self.grant == ISSUED and (self.tokens != "user" or self.issuer or self.clients):
            raise ValueError(
                "'grant: issued' is for each caller, and uses no other issuer; remove 'tokens', "
                "'issuer' and 'clients'"
            )
        if self.grant == ISSUED and (self.scopes or self.listing):
            raise ValueError("'grant: issued' has no 'scopes' and no 'listing'; remove them")
        if (self.grant == ENTERPRISE) is not bool(self.provider):
            raise ValueError(
                "'grant: enterprise' and 'provider' require each other; set both or neither"
            )
        if self.grant == ENTERPRISE and (self.tokens != "user" or not self.clients):
            raise ValueError(
                "'grant: enterprise' needs 'tokens: user', and 'clients' that the provider knows"
            )
        if self.grant == WORKLOAD and not any(each.assertion for each in self.clients.values()):
            raise ValueError(
                "'grant: workload' needs a client with 'assertion'; add one to 'clients'"
            )
        if self.listing and self.tokens != "user":
            raise ValueError(
                "has 'listing', which needs 'tokens: user'; set that, or remove 'listing'"
            )
        return self


def misfit(oauth: ServerOAuth, kind: str, own_env: tuple[str, ...] = ()) -> str:
    """Return an error message if the OAuth settings are invalid for this kind of server.

    The message is empty if they are valid. `own_env` contains the names of the server's own
    variables.
    """
    if oauth.grant == ISSUED:
        return _issued_misfit(oauth, kind)
    if kind in _PROCESSES:
        return _process_misfit(oauth, kind, own_env) or _unproven_misfit(oauth, kind)
    if oauth.env or oauth.file:
        return (
            "'env' and 'file' apply only to processes, which receive their token there; remove them"
        )
    if oauth.resource and kind in ("url", "sse"):
        return f"'resource' is always the address of a {kind} server; remove it"
    return _unproven_misfit(oauth, kind) if kind == "grpc" else ""


def _issued_misfit(oauth: ServerOAuth, kind: str) -> str:
    if kind in _PROCESSES:
        return "'grant: issued' needs a server that verifies tokens; remove 'oauth' from a process"
    if oauth.env or oauth.file:
        return "'env' and 'file' apply only to processes; remove them"
    if oauth.dpop and kind == "grpc":
        return "DPoP is not supported with grpc servers; remove 'dpop'"
    return ""


def _process_misfit(oauth: ServerOAuth, kind: str, own_env: tuple[str, ...]) -> str:
    if bool(oauth.env) is bool(oauth.file):
        return "choose how the process receives its token: either 'env' (a variable) or 'file'"
    if oauth.env in own_env:
        return f"the variable {oauth.env} is already in 'env'; remove one of the two"
    if oauth.file and kind == "container":
        return "a container has no private home; use 'env' to pass its token"
    return ""


def _unproven_misfit(oauth: ServerOAuth, kind: str) -> str:
    """Return an error message for settings that require discovery over HTTP."""
    if oauth.dpop:
        return f"DPoP is not supported with {kind} servers; remove 'dpop'"
    if not (oauth.issuer or oauth.resource):
        return "its authorization server cannot be discovered; set 'issuer' or 'resource'"
    return ""
