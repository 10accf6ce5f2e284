"""Records about other authorization servers and the tokens that they issued."""

from toolbus_common.crypto.sealed_tokens import Claims


class Connection(Claims, frozen=True):
    """Token for an upstream server; `user` is empty if all users share the token.

    The token is used only at `url`. `issuer` issued it for `resource`. `requested` contains the
    requested scopes, and `scopes` contains the granted scopes. `key` is the private key to which
    the token is bound (DPoP), or empty.
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

    `provider` is the provider's name under `issuers`. `url` is the provider's issuer URL at the
    time of the sign-in, and `client_id` is the client id of Toolbus at that time.
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
    """Registration of Toolbus at an authorization server.

    `id` is empty if the server deleted the registration. `ends` is the Unix time at which the
    secret expires, or 0 if it does not expire. `made` is the Unix time of the registration.
    """

    issuer: str
    id: str
    secret: str
    method: str
    ends: float = 0.0
    made: float = 0.0


class Link(Claims, frozen=True):
    """Link at which a person connects a server, with the parameters of the authorization request.

    With `bound`, the requested token is bound to a key (DPoP).
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
    """Reference to the unexpired link of a server and user, with the requested scopes."""

    id: str
    url: str
    issuer: str
    scopes: tuple[str, ...]
    expires: float
    client_id: str = ""


class PendingAuthorization(Claims, frozen=True):
    """Authorization in progress at another server; its state value is valid once."""

    link: Link
    browser: str
    verifier: str
    expires: float


class RenewalLease(Claims, frozen=True):
    """Lease of a renewal: its owner, and when it ends (seconds since the epoch)."""

    by: str
    ends: float
