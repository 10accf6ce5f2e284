"""Canaries: secrets that tests search for in all outputs, in all usual encodings.

A new kind of canary needs three steps:

- Add it to `harness.gateway.canary_gateway`, which creates and configures it.
- Use it in a step of `Story` in `tests/e2e/test_canaries.py`, so that it is transmitted.
- If it can appear in a new output, add this output to `harness.gateway.visible_outputs` and
  `PLACES`.
"""

import secrets
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable, Mapping
from secrets import token_hex
from urllib.parse import quote

_SHORTEST = 8  # minimum length, because shorter spellings would match by chance


def canary(of: str) -> str:
    """Return a random secret."""
    return f"canary-{of}-{token_hex(8)}"


def card() -> str:
    """Return a random card number: a canary for personal data that is not a secret."""
    digits = [4, *(secrets.randbelow(10) for _ in range(14))]
    doubled = [sum(divmod(2 * each, 10)) for each in digits[::2]]
    last = -(sum(doubled) + sum(digits[1::2])) % 10
    return "".join(map(str, (*digits, last)))


def spellings(secret: str) -> set[bytes]:
    """Return the encodings of a secret: plain, URL, hex, and Base64 for each position."""
    raw = secret.encode()
    fields = {raw, quote(secret, safe="").encode(), raw.hex().encode()}
    for before in range(3):
        for encode in (b64encode, urlsafe_b64encode):
            whole = encode(b"\0" * before + raw)
            # Base64 characters that also depend on a neighbouring byte are omitted.
            first, last = -(-before * 8 // 6), (before + len(raw)) * 8 // 6
            fields.add(whole[first:last])
    return {each for each in fields if len(each) >= _SHORTEST}


def canaries_in(planted: Mapping[str, str], place: Iterable[bytes]) -> set[str]:
    """Return the names of the canaries that an output contains."""
    text = b"\0".join(place)
    return {
        name for name, secret in planted.items() if any(each in text for each in spellings(secret))
    }
