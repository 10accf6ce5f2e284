"""What the service keeps and what browsers carry for it; each kind is sealed under its own name."""

from typing import Any

from toolbus_common.access.oauth_scopes import administers
from toolbus_common.crypto.sealed_tokens import Claims


class Account(Claims, frozen=True):
    """Somebody who signs in here. `password` is an Argon2id string, `totp` a secret or empty.

    `claims` are what rules of `access` can ask for, such as groups. A session or grant of another
    `epoch` is over: a new password is a new epoch.
    """

    name: str
    password: str
    totp: bytes = b""
    claims: dict[str, Any] = {}  # noqa: RUF012 - msgspec copies it
    epoch: int = 1
    disabled: bool = False
    made: float = 0.0


class Client(Claims, frozen=True):
    """A program that asks for tokens. `method` is how it proves itself at the token endpoint.

    `registered` says that nobody but itself vouches for what it is called. `exchange` are the
    resources at which it may act on for whose token it was shown. `bound` says that it takes only
    tokens that are bound to a key of its own (RFC 9449).
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
    """Somebody as an issuer vouched for them; `epoch` is their account's, where there is one."""

    issuer: str
    user: str
    claims: dict[str, Any]
    epoch: int = 0


class Grant(Claims, frozen=True):
    """What somebody let a client do. Of its refresh tokens only the newest `generation` is good.

    One that was exchanged for the token of another names that one, `above` it, and ends with it;
    `actors` are who act then, the nearest first. `jkt` is the thumbprint of the key that its tokens
    are bound to; empty: to none. `born` tells it from one of the same id that was ended before.
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


class Wish(Claims, frozen=True):
    """What a client asks a person for, before anybody has agreed. `device` is a device's code.

    With `connect` it is Toolbus that asks, for what lies behind that link of `upstreams`. With
    `account` nobody asks: people want to see what they allowed. With `jkt` only who holds the key
    of this thumbprint gets anything for the code.
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
        """Whether it is about the administration."""
        return not self.connect and administers(self.scope)


class Ticket(Claims, frozen=True):
    """A wish shown to one browser; with a person, one who may agree to it there, once."""

    wish: Wish
    browser: str
    expires: float
    id: str
    person: Person | None = None


class Session(Claims, frozen=True):
    """Somebody signed in with one browser."""

    person: Person
    browser: str
    expires: float


class Code(Claims, frozen=True):
    """What an authorization code stands for: good once."""

    id: str
    wish: Wish
    person: Person
    expires: float


class Refresh(Claims, frozen=True):
    """A refresh token. `jkt` is the key it was bound to when it was given; empty: to none."""

    grant: str
    generation: int
    jkt: str = ""


class Departure(Claims, frozen=True):
    """Where a browser was when it was sent to an OpenID provider. `state` is good once."""

    ticket: Ticket
    issuer: str
    verifier: str
    nonce: str
    expires: float


class Device(Claims, frozen=True):
    """A device that waits for its person. `state` is pending, allowed, denied or used."""

    user_code: str
    secret_hash: str
    wish: Wish
    expires: float
    state: str = "pending"
    person: Person | None = None
    asked: float = 0.0


class Used(Claims, frozen=True):
    """What was used once; `about` is what came of it."""

    about: str = ""


class Guesses(Claims, frozen=True):
    """When a name was tried in vain, or is being tried."""

    at: tuple[float, ...]
