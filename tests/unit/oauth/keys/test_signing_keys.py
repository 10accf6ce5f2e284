"""Signing keys: rotation, and how long a replaced key verifies."""

from pathlib import Path
from time import time

import pytest

from toolbus_oauth.keys import signing_keys as signing
from toolbus_oauth.keys.signing_keys import SigningKeys


def test_a_rotated_key_still_verifies_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time()
    monkeypatch.setattr(signing, "time", lambda: now)
    path = tmp_path / "keys.json"
    keys = SigningKeys(path)
    assert path.stat().st_mode & 0o077 == 0
    token = keys.sign({"sub": "ann"}, "at+jwt")
    now += signing.MONTH + 1
    after = keys.sign({"sub": "bob"}, "at+jwt")
    assert len(keys.public()["keys"]) == 2
    assert SigningKeys(path).verified(token) is not None  # another replica, too
    assert all("d" not in each for each in keys.public()["keys"])
    now += signing.MONTH + signing.OVERLAP
    keys.sign({}, "at+jwt")
    assert keys.verified(token) is None
    assert keys.verified(after) is not None


def test_a_new_key_signs_only_after_verifiers_could_fetch_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time()
    monkeypatch.setattr(signing, "time", lambda: now)
    keys = SigningKeys(tmp_path / "keys.json")
    first = keys.newest
    now += signing.MONTH + 1
    keys.sign({}, "at+jwt")
    assert len(keys.public()["keys"]) == 2
    assert keys.newest == first
    now += signing.KNOWN_SECONDS
    assert keys.newest != first
