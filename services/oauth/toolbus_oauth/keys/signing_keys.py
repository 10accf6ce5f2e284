"""The keys tokens are signed with: one file, a new key every month, the old ones overlapping."""

import json
import os
from pathlib import Path
from time import time
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet

from toolbus_common.crypto.key_file import create_key

ALGORITHM = "ES256"
MONTH = 30 * 86_400.0
OVERLAP = 2 * 86_400.0  # longer than any token lasts
LOOK_SECONDS = 60.0
KNOWN_SECONDS = 300.0  # then each replica, and who keeps the published set, has a new key


class SigningKeys:
    """Signs with the newest key, verifies with every key that may still have signed something."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._looked = 0.0
        self._keys: list[dict[str, Any]] = []
        create_key(path, lambda: _written([_new(time())]))
        self._read(time())

    def sign(self, claims: dict[str, Any], kind: str) -> str:
        """A token of this type."""
        newest = self._current(time())[-1]
        header = {"alg": ALGORITHM, "kid": newest["kid"], "typ": kind}
        return jwt.encode(header, claims, ECKey.import_key(newest), algorithms=[ALGORITHM])

    @property
    def newest(self) -> tuple[str, str]:
        """The id of the key of now, and what makes it again: both are told to nobody outside.

        One that was made a moment ago is yet to be known to everybody who verifies.
        """
        now = time()
        keys = self._current(now)
        known = [each for each in keys if each["made"] <= now - KNOWN_SECONDS]
        found = known[-1] if known else keys[0]
        return found["kid"], found["d"]

    def verified(self, token: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Header and claims of a token we signed; None of any other."""
        keys = KeySet([ECKey.import_key(each) for each in self._current(time())])
        try:
            told = jwt.decode(token, keys, algorithms=[ALGORITHM])
        except (JoseError, ValueError):
            return None
        return dict(told.header), dict(told.claims)

    def public(self) -> dict[str, Any]:
        """The public keys, as a JWK set."""
        hidden = ("d", "made")
        keys = self._current(time())
        return {"keys": [{k: v for k, v in each.items() if k not in hidden} for each in keys]}

    def _current(self, now: float) -> list[dict[str, Any]]:
        if now - self._looked > LOOK_SECONDS:
            self._read(now)
        return self._keys

    def _read(self, now: float) -> None:
        """Take in what another replica may have written, and change keys when it is time."""
        self._looked = now
        self._keys = json.loads(self._path.read_text())["keys"]
        if now - self._keys[-1]["made"] > MONTH:
            kept = [each for each in self._keys if now - each["made"] < MONTH + OVERLAP]
            self._keys = [*(kept or self._keys[-1:]), _new(now)]
            self._write()

    def _write(self) -> None:
        fresh = self._path.with_suffix(f".{os.getpid()}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(_written(self._keys))
        fresh.replace(self._path)


def _new(now: float) -> dict[str, Any]:
    key = ECKey.generate_key("P-256")
    told: dict[str, Any] = dict(key.as_dict(private=True))
    return {**told, "kid": key.thumbprint(), "use": "sig", "alg": ALGORITHM, "made": now}


def _written(keys: list[dict[str, Any]]) -> bytes:
    return json.dumps({"keys": keys}).encode()
