"""Signing keys in one file: a new key every month, with an overlap for issued tokens."""

import json
import os
from pathlib import Path
from time import time
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from toolbus_common.crypto.jws import JwsError
from toolbus_common.crypto.key_file import create_key
from toolbus_oauth.keys.verified_jwt import parse_verified

ALGORITHM = "ES256"
MONTH = 30 * 86_400.0
OVERLAP = 2 * 86_400.0  # longer than the longest token lifetime
RELOAD_SECONDS = 60.0
# Seconds after which every replica and every cache of the published keys has a new key.
KNOWN_SECONDS = 300.0


class SigningKeys:
    """Key set that signs with its newest key and verifies with every key of an unexpired token."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_at = 0.0
        self._keys: list[dict[str, Any]] = []  # private JWKs, the newest last
        self._imported = KeySet([])
        create_key(path, lambda: _encoded([_new_key(time())]))
        self._read(time())

    def sign(self, claims: dict[str, Any], kind: str) -> str:
        """Return a JWT of the type `kind`, signed with the newest key."""
        newest = self.signing_key
        header = {"alg": ALGORITHM, "kid": newest.kid, "typ": kind}
        return jwt.encode(header, claims, newest, algorithms=[ALGORITHM])

    @property
    def signing_key(self) -> ECKey:
        """The newest key, with its id."""
        newest = self._current(time()).keys[-1]
        assert isinstance(newest, ECKey)  # noqa: S101 - `_imported` returns only EC keys
        return newest

    @property
    def newest(self) -> tuple[str, str]:
        """The id and private part of the newest key that all verifiers can know.

        A key that was created in the last `KNOWN_SECONDS` is not used yet.
        """
        now = time()
        self._current(now)
        known = [each for each in self._keys if each["made"] <= now - KNOWN_SECONDS]
        found = known[-1] if known else self._keys[0]
        return found["kid"], found["d"]

    def verified(self, token: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Return header and claims of a token that one of these keys signed, or None."""
        try:
            return parse_verified(token, self._current(time()), [ALGORITHM])
        except JwsError:
            return None

    def public(self) -> dict[str, Any]:
        """Return the public keys as a JWK set."""
        return dict(self._current(time()).as_dict(private=False))

    def _current(self, now: float) -> KeySet:
        if now - self._read_at > RELOAD_SECONDS:
            self._read(now)
        return self._imported

    def _read(self, now: float) -> None:
        """Reload the keys, which another replica may have changed.

        If the newest key is older than `MONTH`, add a new key and remove expired keys.
        """
        self._read_at = now
        self._keys = json.loads(self._path.read_text())["keys"]
        if now - self._keys[-1]["made"] > MONTH:
            valid = [each for each in self._keys if now - each["made"] < MONTH + OVERLAP]
            self._keys = [*(valid or self._keys[-1:]), _new_key(now)]
            self._write()
        self._imported = KeySet([_imported(each) for each in self._keys])

    def _write(self) -> None:
        fresh = self._path.with_suffix(f".{os.getpid()}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(_encoded(self._keys))
        fresh.replace(self._path)


def _new_key(now: float) -> dict[str, Any]:
    key = ECKey.generate_key("P-256")
    members: dict[str, Any] = dict(key.as_dict(private=True))
    return {**members, "kid": key.thumbprint(), "use": "sig", "alg": ALGORITHM, "made": now}


def _imported(members: dict[str, Any]) -> ECKey:
    return ECKey.import_key({name: each for name, each in members.items() if name != "made"})


def _encoded(keys: list[dict[str, Any]]) -> bytes:
    return json.dumps({"keys": keys}).encode()
