"""How Toolbus is authorized towards a server that wants OAuth."""

import re
from typing import Annotated, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from toolbus_common.config.base import ConfigModel

_REFERENCE = re.compile(r"\$\{[a-z]+:[^{}]+\}")
_FILE = re.compile(r"~(?:/[A-Za-z0-9._-]+){2,8}")
_PROCESSES = ("command", "python", "container")
Text = Annotated[str, Field(max_length=512)]
CLIENT_CREDENTIALS, WORKLOAD, ENTERPRISE = "client_credentials", "workload", "enterprise"
OF_PEOPLE = ("consent", ENTERPRISE)
REFERENCES = ("secret", "key", "assertion", "certificate")  # of a client, to what is shown there
BY_KEY: Final = "private_key_jwt"  # a client proves itself by its signature
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
    """What an authorization server knows Toolbus as. `secret`, `key` and the rest are references.

    `method` is how it proves itself; empty: with its secret as the server likes best. `key` is a
    private key in PEM form for `private_key_jwt`; without it Toolbus signs with its own. Beside a
    `certificate`, in PEM form too, it is that one's: both are shown in TLS, and the certificate
    proves the client (`tls_client_auth`) or, with another method, is what its tokens are bound to.
    `assertion` is a token of the workload's own, which others vouch for and renew: it stands in the
    place of a signature, or is what the grant `workload` is asked with.
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
            raise ValueError("must be a reference, such as ${env:NAME}; a secret is not kept here")
        return secret

    @model_validator(mode="after")
    def _signs_with_its_key(self) -> Self:
        if self.certificate:
            return self
        if self.key and self.method not in ("", BY_KEY):
            raise ValueError(f"has a key, which is for the method {BY_KEY}; leave one out")
        if self.key and self.assertion:
            raise ValueError("has a key and an assertion, which is signed already; leave one out")
        return self

    @model_validator(mode="after")
    def _has_its_certificate(self) -> Self:
        if self.certificate and not self.key:
            raise ValueError("has a certificate without its key; name both, as references")
        if self.method in BY_CERTIFICATE and not self.certificate:
            raise ValueError(f"{self.method} needs a certificate and its key; name both")
        if self.method in BY_CERTIFICATE and self.secret:
            raise ValueError(f"{self.method} takes no secret; leave one of them out")
        return self


class ServerOAuth(ConfigModel):
    """Whose tokens a server is called with, and how they are got.

    `tokens`: `shared` is one for everybody, `user` one of each person's own. `grant`: a person
    consents; Toolbus is its own master (`client_credentials`), or what it runs on vouches for it
    (`workload`); or `provider`, one of `issuers`, vouches for each person (`enterprise`). `issuer`
    is which authorization server counts where the server names several. `clients` are
    registrations, by issuer; what is declared for one is never shown to another. `scopes` are asked
    for beside what the server wants. `listing` is the user with whose connection tools are listed
    where each person has their own; without it, whichever lasts longest is used. `dpop`: tokens are
    bound to a key of Toolbus' own; unset: where the authorization server offers it, and no bound
    token is no reason to give up. `resource` is the URL that tokens are for, where that is not
    where the server is. A process gets its token in the variable `env` of its environment, or in
    the file `file` of its private home.
    """

    tokens: Literal["shared", "user"] = "shared"
    grant: Literal["consent", "client_credentials", "workload", "enterprise"] = "consent"
    provider: Text = ""
    issuer: Text = ""
    clients: dict[Text, OAuthClient] = Field(default_factory=dict)
    scopes: tuple[Text, ...] = ()
    listing: Text = ""
    dpop: bool | None = None
    resource: Text = ""
    env: Text = ""
    file: Text = ""

    @field_validator("resource")
    @classmethod
    def _is_url(cls, resource: str) -> str:
        if resource and not re.fullmatch(r"https?://[^/\s?#]+[^\s#]*", resource):
            raise ValueError("must be the URL that tokens are for, without #")
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
                "~/.secrets/token: nothing else is in that directory"
            )
        return file

    @model_validator(mode="after")
    def _fits_itself(self) -> Self:
        if self.tokens == "user" and self.grant not in OF_PEOPLE:
            raise ValueError("tokens of each user need grant consent (leave it out) or enterprise")
        if (self.grant == ENTERPRISE) is not bool(self.provider):
            raise ValueError("grant enterprise and provider, who vouches, belong together")
        if self.grant == ENTERPRISE and (self.tokens != "user" or not self.clients):
            raise ValueError(
                "grant enterprise needs tokens: user, and clients that the provider knows"
            )
        if self.grant == WORKLOAD and not any(each.assertion for each in self.clients.values()):
            raise ValueError("grant workload needs a client with an assertion; name it")
        if self.listing and self.tokens != "user":
            raise ValueError("listing names one of several; it needs tokens: user, or leave it out")
        return self


def misfit(oauth: ServerOAuth, kind: str, own_env: tuple[str, ...] = ()) -> str:
    """Return what does not fit a server of this kind; empty where everything does."""
    if kind in _PROCESSES:
        return _process_misfit(oauth, kind, own_env) or _unproven_misfit(oauth, kind)
    if oauth.env or oauth.file:
        return "env and file are for processes, which are given their token; leave them out"
    if oauth.resource and kind in ("url", "sse"):
        return f"resource is where the {kind} leads; leave it out"
    return _unproven_misfit(oauth, kind) if kind == "grpc" else ""


def _process_misfit(oauth: ServerOAuth, kind: str, own_env: tuple[str, ...]) -> str:
    if bool(oauth.env) is bool(oauth.file):
        return "name how the process is given its token: either env (a variable) or file"
    if oauth.env in own_env:
        return f"{oauth.env} is under env already; leave one of them out"
    if oauth.file and kind == "container":
        return "a container has no private home: give it its token by env"
    return ""


def _unproven_misfit(oauth: ServerOAuth, kind: str) -> str:
    """Of servers that nobody asks over HTTP what they want, and that prove nothing."""
    if oauth.dpop:
        return f"a {kind} server cannot prove a bound token; leave dpop out"
    if not (oauth.issuer or oauth.resource):
        return "name the issuer whose tokens it takes, or the resource they are for"
    return ""
