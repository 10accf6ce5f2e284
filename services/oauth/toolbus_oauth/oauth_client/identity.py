"""Types of token requests: the identity of Toolbus as a client, endpoint, and error."""

from dataclasses import dataclass, field

INVALID_CLIENT = "invalid_client"
FOR_GOOD = ("invalid_grant", "unauthorized_client", "invalid_scope")


class TokenRequestError(Exception):
    """No token was issued; `code` is the OAuth error code, or empty without a valid response."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code

    @property
    def for_good(self) -> bool:
        """Whether the error is permanent: every repetition of the request fails too."""
        return self.code in FOR_GOOD


@dataclass(frozen=True, slots=True)
class ClientIdentity:
    """Client id and its credential: a secret, a private key, an external assertion, or none.

    `shown` is a client certificate with its key, as one PEM text, for mutual TLS. With
    `id_in_form`, a client that uses HTTP Basic also sends its id in the form.
    """

    id: str
    method: str
    secret: str = field(default="", repr=False)
    key: str = field(default="", repr=False)
    assertion: str = field(default="", repr=False)
    shown: str = field(default="", repr=False)
    id_in_form: bool = False


@dataclass(frozen=True, slots=True)
class RemoteEndpoint:
    """Token or revocation endpoint; `issuer` is the audience of client assertions.

    `named` is true if an operator configured the host of `url`.
    """

    url: str
    issuer: str
    named: bool
