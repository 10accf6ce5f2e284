"""DPoP proofs (RFC 9449) of any form, and an independent parser of proofs."""

import json
import time
import uuid
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey

_KINDS: dict[str, Any] = {"ES256": ECKey, "EdDSA": OKPKey, "RS256": RSAKey}


class Holder:
    """The holder of a private key of one algorithm."""

    def __init__(self, algorithm: str = "ES256") -> None:
        self.algorithm = algorithm
        self._key: Any
        if algorithm == "ES256":
            self._key = ec.generate_private_key(ec.SECP256R1())
        elif algorithm == "EdDSA":
            self._key = ed25519.Ed25519PrivateKey.generate()
        else:
            self._key = rsa.generate_private_key(65537, 2048)
        known = _KINDS[algorithm].import_key(self._key)
        self.private = dict(known.as_dict(private=True))
        self.jwk = dict(known.as_dict(private=False))
        self.jkt = str(known.thumbprint())

    def proof(
        self, method: str, url: str, token: str = "", header: Any = None, **claims: Any
    ) -> str:
        """Return a proof for a request.

        `header` and `claims` override the defaults. None removes a claim.
        """
        head = {"typ": "dpop+jwt", "alg": self.algorithm, "jwk": self.jwk, **(header or {})}
        fields = {"jti": uuid.uuid4().hex, "htm": method, "htu": url, "iat": int(time.time())}
        fields |= {"ath": encoded(sha256(token.encode()).digest())} if token else {}
        fields = {name: value for name, value in (fields | claims).items() if value is not None}
        return signed_text(self, json.dumps(head), json.dumps(fields))

    def signed(self, message: bytes) -> bytes:
        """Return the signature of a message."""
        if self.algorithm == "ES256":
            pair = decode_dss_signature(self._key.sign(message, ec.ECDSA(SHA256())))
            return b"".join(number.to_bytes(32, "big") for number in pair)
        if self.algorithm == "EdDSA":
            return bytes(self._key.sign(message))
        return bytes(self._key.sign(message, PKCS1v15(), SHA256()))


def signed_text(holder: Holder, header: str, claims: str) -> str:
    """Return a JWS with these texts, which can be invalid JSON."""
    message = f"{encoded(header.encode())}.{encoded(claims.encode())}"
    return f"{message}.{encoded(holder.signed(message.encode()))}"


def read(proof: str) -> tuple[dict[str, Any], str]:
    """Return the claims and the key thumbprint of an ES256 proof.

    Raises an error for an invalid proof.
    """
    header = json.loads(decoded(proof.partition(".")[0]))
    if header["typ"] != "dpop+jwt" or "d" in header["jwk"]:
        raise ValueError(header)
    key = ECKey.import_key(header["jwk"])
    return dict(jwt.decode(proof, key, algorithms=["ES256"]).claims), str(key.thumbprint())


def encoded(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
