"""Known secrets are struck from text in any encoding, also if cut."""

import json
from base64 import b64encode, urlsafe_b64encode
from urllib.parse import quote

import pytest

from harness.samples.canaries import spellings
from toolbus_executor.known_secrets import PIECE, KnownSecrets

SECRET = 'Zq7!x/Kp"2 vé+Tn9=Wb3Lm'
STRUCK = "[redacted]"


def test_text_without_a_secret_is_unchanged() -> None:
    lines = ["Starting on port 8080", "", "  done İ"]
    assert KnownSecrets([SECRET]).struck(lines) == lines
    assert KnownSecrets().struck(lines) == lines


@pytest.mark.parametrize(
    "spelt",
    [
        SECRET, SECRET.upper(), SECRET.lower(), repr(SECRET), json.dumps(SECRET), quote(SECRET),
        quote(SECRET, safe=""), SECRET.encode().hex(), SECRET.encode().hex().upper(),
        b64encode(f"user:{SECRET}".encode()).decode(),
        b64encode(f"me:{SECRET}:x".encode()).decode(),
        urlsafe_b64encode(f"a{SECRET}".encode()).decode(),
    ],
)  # fmt: skip
def test_a_secret_is_redacted_in_every_encoding(spelt: str) -> None:
    (line,) = KnownSecrets([SECRET]).struck([f"cannot sign in with <{spelt}> today"])
    assert STRUCK in line
    assert line.startswith("cannot sign in with ")
    assert line.endswith(" today")
    assert not any(each.decode("latin-1") in line for each in spellings(SECRET))


@pytest.mark.parametrize("size", range(1, 12))
def test_a_secret_broken_across_lines_is_redacted(size: int) -> None:
    secret = "abcdefghijklmnopqrstuvwxyz0123456789"
    cut = [secret[at : at + size] for at in range(0, len(secret), size)]
    lines = KnownSecrets([secret]).struck(["before", *cut, "after"])
    assert lines == ["before", *[STRUCK] * len(cut), "after"]


def test_part_of_a_secret_is_redacted() -> None:
    secret = "abcdefghijklmnopqrstuvwxyz0123456789"
    assert KnownSecrets([secret]).struck([f"({secret[3 : 3 + PIECE]})"]) == [f"({STRUCK})"]


def test_a_short_secret_is_redacted_whole_and_a_shorter_value_is_not() -> None:
    assert KnownSecrets(["a1b2"]).struck(["is a1b2 or a1b"]) == [f"is {STRUCK} or a1b"]
    assert KnownSecrets(["on"]).struck(["it is on"]) == ["it is on"]
