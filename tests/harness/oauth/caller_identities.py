"""Issuer of signed caller identities in memory, and their verification with PyJWT."""

from typing import Any

import jwt

from toolbus_common.contracts import Identified, IdentityKeyReply
from toolbus_common.crypto.p256 import P256Key
from toolbus_common.egress import Allowed, Egress
from toolbus_common.errors import UnavailableError
from toolbus_executor.identity.keys import IdentityKeys
from toolbus_executor.transport.dialer_factory import DialerFactory

ISSUER = "https://gateway.test"
TYPE = "toolbus-identity+jwt"
OF_ANN: dict[str, Any] = {
    "user": "ann",
    "key": "staff:7f",
    "customer": "acme",
    "identity": Identified(team="support", actors=("helper", "desk")),
}


class Issuing:
    """Issuer that returns the same key set as oauth, unless `away` is set.

    `queries` is a counter.
    """

    def __init__(self) -> None:
        self.key = P256Key.new()
        self.away = False
        self.queries = 0
        self.keys = IdentityKeys(self.reply)

    @property
    def ways(self) -> DialerFactory:
        """The egress policy of an operator who allows the addresses of this machine."""
        return DialerFactory(Egress(Allowed.of("127.0.0.0/8 ::1")), keys=self.keys)

    async def reply(self) -> IdentityKeyReply:
        """Return the reply of oauth."""
        self.queries += 1
        if self.away:
            raise UnavailableError("No oauth service is running.")
        return IdentityKeyReply(issuer=ISSUER, id="k1", key=self.key.kept)

    def read(self, token: str, audience: str) -> dict[str, Any]:
        """Return the claims of a token for this audience. Raises an error for an invalid token."""
        header = jwt.get_unverified_header(token)
        assert (header["typ"], header["kid"], header["alg"]) == (TYPE, "k1", "ES256")
        return verified(token, jwt.PyJWK({**self.key.public, "alg": "ES256"}), audience, ISSUER)


def verified(token: str, key: jwt.PyJWK, audience: str, issuer: str) -> dict[str, Any]:
    """Return the claims that PyJWT verifies, including all claims that a server must check."""
    needed = ["iss", "aud", "sub", "iat", "exp"]
    result: dict[str, Any] = jwt.decode(
        token, key, algorithms=["ES256"], audience=audience, issuer=issuer,
        options={"require": needed},
    )  # fmt: skip
    assert 0 < result["exp"] - result["iat"] <= 60
    return result
