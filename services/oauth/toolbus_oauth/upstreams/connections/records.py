"""Stored state of other authorization servers, and the tokens they issued."""

from toolbus_common.crypto.sealed_tokens import Claims


class Connection(Claims, frozen=True):
    """Token for a server, of one user or (empty) shared by all.

    It is used only at `url`; `issuer` issued it for `resource`. `asked` are the requested scopes,
    `scopes` the granted ones. `key` is the private key the token is bound to (DPoP), or empty.
    """

    server: str
    user: str
    url: str
    issuer: str
    resource: str
    endpoint: str
    revocation: str
    client_id: str
    method: str
    token: str
    ends: float
    refresh: str
    requested: tuple[str, ...]
    scopes: tuple[str, ...]
    made: float
    key: str = ""


class ProviderTokens(Claims, frozen=True):
    """Tokens from a person's sign-in at a provider, to be exchanged for identity assertions.

    `provider` is its name under `issuers`, `url` its issuer URL at that time, `client_id` the
    client that signed the person in.
    """

    provider: str
    url: str
    client_id: str
    user: str
    subject: str
    token: str
    ends: float
    refresh: str


class Registration(Claims, frozen=True):
    """Registration of Toolbus at an authorization server; `id` is empty if it was forgotten there.

    `ends` is when the secret expires (0: never), `made` when it was registered.
    """

    issuer: str
    id: str
    secret: str
    method: str
    ends: float = 0.0
    made: float = 0.0


class Link(Claims, frozen=True):
    """Link at which a person connects a server, and the authorization request it leads to.

    With `bound` the token is to be bound to a key (DPoP).
    """

    id: str
    server: str
    user: str
    url: str
    issuer: str
    resource: str
    authorize: str
    endpoint: str
    revocation: str
    says_issuer: bool
    client_id: str
    method: str
    scopes: tuple[str, ...]
    expires: float
    bound: bool = False


class OpenLink(Claims, frozen=True):
    """Open link of a server and user, with the scopes and client of its request."""

    id: str
    url: str
    issuer: str
    scopes: tuple[str, ...]
    expires: float
    client_id: str = ""


class PendingAuthorization(Claims, frozen=True):
    """Authorization in progress at another server; its state is valid once."""

    link: Link
    browser: str
    verifier: str
    expires: float


class RenewalLease(Claims, frozen=True):
    """Lease of a renewal: its owner, and when it ends (seconds since the epoch)."""

    by: str
    ends: float
