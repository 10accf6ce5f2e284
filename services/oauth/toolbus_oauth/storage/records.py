"""Records that the service stores or sends to browsers, encrypted under their class names."""

from typing import Any

from toolbus_common.access.oauth_scopes import administers
from toolbus_common.crypto.sealed_tokens import Claims


class Account(Claims, frozen=True):
    """Local account. `password` is an Argon2id PHC string.

    `totp` is the secret of the second factor, or empty. The rules under `access` match `claims`,
    such as groups. Each change of the account increments `epoch`; sessions and grants of an earlier
    epoch are invalid.
    """

    name: str
    password: str
    totp: bytes = b""
    claims: dict[str, Any] = {}  # noqa: RUF012 - msgspec copies it
    epoch: int = 1
    disabled: bool = False
    made: float = 0.0


class Client(Claims, frozen=True):
    """OAuth client. `method` is its authentication method at the token endpoint.

    `registered` is true if the client registered itself; its name is then not verified. `exchange`
    lists the resources for which the client may exchange a user's token. With `bound`, its tokens
    must be bound to a key (RFC 9449).
    """

    id: str
    name: str
    redirects: tuple[str, ...] = ()
    method: str = "none"
    secret_hash: str = ""
    keys: dict[str, Any] = {}  # noqa: RUF012 - the public keys as a JWK set
    grants: tuple[str, ...] = ("authorization_code", "refresh_token")
    registered: bool = False
    made: float = 0.0
    exchange: tuple[str, ...] = ()
    bound: bool = False


class Person(Claims, frozen=True):
    """Person whom an issuer authenticated; `epoch` is the epoch of a local account, or 0."""

    issuer: str
    user: str
    claims: dict[str, Any]
    epoch: int = 0


class Grant(Claims, frozen=True):
    """Access that a person gave to a client; only refresh tokens of `generation` are valid.

    Attributes:
        above: For a token exchange, the id of the original grant; this grant ends with that grant.
        actors: For a token exchange, the acting clients, the nearest first.
        jkt: Thumbprint of the key to which the tokens are bound, or empty.
        born: Random value that distinguishes the grant from an ended grant with the same id.

    """

    id: str
    client_id: str
    client: str
    person: Person
    resource: str
    scope: str
    made: float
    ends: float
    generation: int = 0
    above: str = ""
    actors: tuple[str, ...] = ()
    jkt: str = ""
    born: str = ""


class AuthorizationRequest(Claims, frozen=True):
    """Authorization request on which the person has not decided yet.

    Attributes:
        device: User code of the device that requests access, or empty.
        connect: Id of a link, if Toolbus itself requests access to an upstream server, or empty.
        account: Whether the person requested the account page.
        jkt: Thumbprint of the key that is required to redeem the code, or empty.

    """

    client_id: str
    client: str
    redirect: str
    state: str
    challenge: str
    scope: str
    resource: str
    registered: bool = True
    device: str = ""
    connect: str = ""
    account: bool = False
    jkt: str = ""

    @property
    def administers(self) -> bool:
        """Whether the request includes administration scopes."""
        return not self.connect and administers(self.scope)


class Ticket(Claims, frozen=True):
    """Authorization request shown to one browser. With a `person`, it is accepted once."""

    auth_request: AuthorizationRequest
    browser: str
    expires: float
    id: str
    person: Person | None = None


class Session(Claims, frozen=True):
    """Sign-in of a person in one browser."""

    person: Person
    browser: str
    expires: float


class Code(Claims, frozen=True):
    """Content of an authorization code; a code is redeemed once."""

    id: str
    auth_request: AuthorizationRequest
    person: Person
    expires: float


class Refresh(Claims, frozen=True):
    """Content of a refresh token. `jkt` is the thumbprint of the key it is bound to, or empty."""

    grant: str
    generation: int
    jkt: str = ""


class PendingSignIn(Claims, frozen=True):
    """Sign-in in progress at an OpenID provider. Its state value is valid once."""

    ticket: Ticket
    issuer: str
    verifier: str
    nonce: str
    expires: float


class Device(Claims, frozen=True):
    """Device that waits for a decision. `state` is pending, allowed, denied or used."""

    user_code: str
    secret_hash: str
    auth_request: AuthorizationRequest
    expires: float
    state: str = "pending"
    person: Person | None = None
    polled_at: float = 0.0


class Used(Claims, frozen=True):
    """Marker of a value that may be used once; `about` is the result of its use."""

    about: str = ""


class SignInLink(Claims, frozen=True):
    """Link that signs a browser in to the console with an admin key, until `expires`."""

    secret: str
    expires: float


class SignInAttempts(Claims, frozen=True):
    """Times (seconds since the epoch) of failed and pending sign-in attempts for one name."""

    at: tuple[float, ...]
