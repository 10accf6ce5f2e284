"""Records that the service stores or that browsers carry, encrypted under their class names."""

from typing import Any

from toolbus_common.access.oauth_scopes import administers
from toolbus_common.crypto.sealed_tokens import Claims


class Account(Claims, frozen=True):
    """Local account. `password` is an Argon2id PHC string, `totp` a secret or empty.

    `claims`, such as groups, are matched by the rules under `access`. A new password is a new
    `epoch`: sessions and grants of an earlier epoch are invalid.
    """

    name: str
    password: str
    totp: bytes = b""
    claims: dict[str, Any] = {}  # noqa: RUF012 - msgspec copies it
    epoch: int = 1
    disabled: bool = False
    made: float = 0.0


class Client(Claims, frozen=True):
    """OAuth client. `method` is how it authenticates at the token endpoint.

    `registered` is set if the client registered itself, so that its name is not verified.
    `exchange` lists the resources for which it may exchange another user's token. With `bound`, its
    tokens must be bound to a key (RFC 9449).
    """

    id: str
    name: str
    redirects: tuple[str, ...] = ()
    method: str = "none"
    secret_hash: str = ""
    keys: dict[str, Any] = {}  # noqa: RUF012 - its public keys as a JWK set
    grants: tuple[str, ...] = ("authorization_code", "refresh_token")
    registered: bool = False
    made: float = 0.0
    exchange: tuple[str, ...] = ()
    bound: bool = False


class Person(Claims, frozen=True):
    """Person as authenticated by an issuer; `epoch` is that of a local account, otherwise 0."""

    issuer: str
    user: str
    claims: dict[str, Any]
    epoch: int = 0


class Grant(Claims, frozen=True):
    """Access that a person gave a client; only the newest refresh-token `generation` is valid.

    A grant from a token exchange has the original grant's id in `above` and ends with it; `actors`
    then lists the acting clients, the nearest first. `jkt` is the thumbprint of the key that the
    tokens are bound to, or empty. `born` distinguishes a grant from an earlier, ended grant with
    the same id.
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

    `device` is a device's user code.

    With `connect`, Toolbus requests access at the upstream server of that link. With `account`, the
    person requested the account page. With `jkt`, the code is redeemed only by the holder of the
    key with this thumbprint.
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
    """Authorization request shown to one browser. With a `person`, it can be answered once."""

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
    """Refresh token. `jkt` is the thumbprint of the key it was bound to when issued, or empty."""

    grant: str
    generation: int
    jkt: str = ""


class PendingSignIn(Claims, frozen=True):
    """Sign-in in progress at an OpenID provider. Its `state` is valid once."""

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


class SignInAttempts(Claims, frozen=True):
    """Times (seconds since the epoch) of failed and pending sign-in attempts for one name."""

    at: tuple[float, ...]
