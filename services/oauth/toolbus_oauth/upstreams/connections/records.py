"""What is kept of other authorization servers, and of the tokens they gave."""

from toolbus_common.crypto.sealed_tokens import Claims


class Connection(Claims, frozen=True):
    """A token for a server, in a user's name or (empty) for everybody.

    It is of use at `url` alone, and was given by `issuer` for `resource`. `asked` are the scopes
    that were asked for, `scopes` those that were given. `key` is the private key the token is bound
    to (DPoP), empty where it is bound to none.
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
    asked: tuple[str, ...]
    scopes: tuple[str, ...]
    made: float
    key: str = ""


class Vouched(Claims, frozen=True):
    """What a provider gave when somebody signed in there: with it they are vouched for elsewhere.

    `provider` is its name under `issuers`, `url` what it was called then, `client_id` who asked.
    """

    provider: str
    url: str
    client_id: str
    user: str
    subject: str
    token: str
    ends: float
    refresh: str


class Enrolled(Claims, frozen=True):
    """What an authorization server registered Toolbus as; without an id that was forgotten there.

    `ends` is when the secret does, 0: never; `made` when it was registered.
    """

    issuer: str
    id: str
    secret: str
    method: str
    ends: float = 0.0
    made: float = 0.0


class Link(Claims, frozen=True):
    """A page at which somebody lets Toolbus act for them, and what will be asked where.

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
    """Which link is open for a server and user, the scopes it asks for, and as which client."""

    id: str
    url: str
    issuer: str
    scopes: tuple[str, ...]
    expires: float
    client_id: str = ""


class Away(Claims, frozen=True):
    """Where a browser was when it was sent to the authorization server; good once."""

    link: Link
    browser: str
    verifier: str
    expires: float


class Renewing(Claims, frozen=True):
    """Who gets a connection's next token, and until when nobody else tries."""

    by: str
    ends: float
