"""Third-party key services over HTTP, according to their documented interfaces.

One server wraps keys in the same way as HashiCorp Vault's transit engine, Google's KMS and Azure's
Key Vault. Its keys never leave it.
"""

import os
import re
from base64 import b64decode, b64encode, urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: TID251 - not Toolbus
from cryptography.hazmat.primitives.hashes import SHA256

from harness.receivers.secret_stores import SecretStores

_NONCE = 12
_TRANSIT = re.compile(r"/v1/transit/(encrypt|decrypt)/([^/]+)")
_GOOGLE = re.compile(r"/v1/(projects/.+):(encrypt|decrypt)")
_AZURE = re.compile(r"/keys/([^/]+)(?:/([0-9a-f]*)(?:/(wrapkey|unwrapkey))?)?")
_VERSION = "0123456789abcdef" * 2


@dataclass
class KeyServices(SecretStores):
    """The server.

    `keys` are the existing names. All Azure keys are one RSA key with one version.
    """

    keys: dict[str, bytes] = field(default_factory=dict)
    pair: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))

    def add(self, *names: str) -> None:
        """Create keys."""
        self.keys |= {name: AESGCM.generate_key(256) for name in names}

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        """Return the response to an authorized request."""
        if found := _TRANSIT.fullmatch(path):
            return self._transit(found[1], found[2], body)
        if found := _GOOGLE.fullmatch(path):
            return self._google(found[1], found[2], body)
        if found := _AZURE.fullmatch(path):
            return self._azure(found[1], found[3], body)
        return super().answer(path, body)

    def _transit(self, verb: str, name: str, body: Any) -> tuple[int, Any]:
        if name not in self.keys:
            return 404, {"errors": []}
        if verb == "encrypt":
            sealed = b64encode(self._sealed(name, b64decode(body["plaintext"]))).decode()
            return 200, {"data": {"ciphertext": f"vault:v1:{sealed}", "key_version": 1}}
        opened = self._opened(name, b64decode(body["ciphertext"].removeprefix("vault:v1:")))
        if opened is None:
            return 400, {"errors": ["invalid ciphertext: could not decrypt"]}
        return 200, {"data": {"plaintext": b64encode(opened).decode()}}

    def _google(self, name: str, verb: str, body: Any) -> tuple[int, Any]:
        if name not in self.keys:
            return 404, {"error": {"code": 404, "message": "not found", "status": "NOT_FOUND"}}
        if verb == "encrypt":
            sealed = self._sealed(name, b64decode(body["plaintext"]))
            return 200, {"name": f"{name}/cryptoKeyVersions/1", "ciphertext": _text(sealed)}
        opened = self._opened(name, b64decode(body["ciphertext"]))
        if opened is None:
            wrong = {"code": 400, "message": "Decryption failed", "status": "INVALID_ARGUMENT"}
            return 400, {"error": wrong}
        return 200, {"plaintext": _text(opened)}

    def _azure(self, name: str, verb: str | None, body: Any) -> tuple[int, Any]:
        if name not in self.keys:
            return 404, {"error": {"code": "KeyNotFound", "message": "not found"}}
        kid = f"https://localhost:{self.port}/keys/{name}/{_VERSION}"
        if verb is None:
            return 200, {"key": {"kid": kid, **self._public()}, "attributes": {"enabled": True}}
        way = padding.OAEP(padding.MGF1(SHA256()), SHA256(), None)
        raw = urlsafe_b64decode(body["value"] + "==")
        try:
            public = self.pair.public_key()
            result = public.encrypt(raw, way) if verb == "wrapkey" else self.pair.decrypt(raw, way)
        except ValueError:
            return 400, {"error": {"code": "BadParameter", "message": "not wrapped by this key"}}
        return 200, {"kid": kid, "value": urlsafe_b64encode(result).rstrip(b"=").decode()}

    def _public(self) -> dict[str, Any]:
        numbers = self.pair.public_key().public_numbers()
        fields = {"n": numbers.n.to_bytes(256), "e": numbers.e.to_bytes(3)}
        text = {name: urlsafe_b64encode(raw).rstrip(b"=").decode() for name, raw in fields.items()}
        return {"kty": "RSA", "key_ops": ["wrapKey", "unwrapKey"], **text}

    def _sealed(self, name: str, raw: bytes) -> bytes:
        nonce = os.urandom(_NONCE)
        return nonce + AESGCM(self.keys[name]).encrypt(nonce, raw, None)

    def _opened(self, name: str, sealed: bytes) -> bytes | None:
        try:
            return AESGCM(self.keys[name]).decrypt(sealed[:_NONCE], sealed[_NONCE:], None)
        except InvalidTag:
            return None


def _text(raw: bytes) -> str:
    return b64encode(raw).decode()
