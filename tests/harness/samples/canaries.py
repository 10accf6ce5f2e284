"""Canaries: secrets that sing wherever they are spelt out, plainly or as programs spell things.

Adding a kind takes three steps: name it in `harness.gateway.canary_gateway` (which creates it and
configures where it goes), use it in a step of `Story` in `tests/e2e/test_canaries.py` so that it
really travels, and, if it may surface somewhere new, add that place to
`harness.gateway.visible_outputs` and `PLACES`.
"""

import secrets
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable, Mapping
from secrets import token_hex
from urllib.parse import quote

_SHORTEST = 8  # characters of a spelling: fewer would be found in anything


def canary(of: str) -> str:
    """A secret that is nowhere by chance."""
    return f"canary-{of}-{token_hex(8)}"


def card() -> str:
    """A card number that is nowhere by chance: a canary of somebody's data, and no secret."""
    digits = [4, *(secrets.randbelow(10) for _ in range(14))]
    doubled = [sum(divmod(2 * each, 10)) for each in digits[::2]]
    last = -(sum(doubled) + sum(digits[1::2])) % 10
    return "".join(map(str, (*digits, last)))


def spellings(secret: str) -> set[bytes]:
    """How a secret may be written: as it is, for a URL, in hex, in Base64 wherever it begins."""
    raw = secret.encode()
    fields = {raw, quote(secret, safe="").encode(), raw.hex().encode()}
    for before in range(3):
        for encode in (b64encode, urlsafe_b64encode):
            whole = encode(b"\0" * before + raw)
            # What shares a letter with what stands before or after it is another there.
            first, last = -(-before * 8 // 6), (before + len(raw)) * 8 // 6
            fields.add(whole[first:last])
    return {each for each in fields if len(each) >= _SHORTEST}


def singing(planted: Mapping[str, str], place: Iterable[bytes]) -> set[str]:
    """The names of those that can be heard at a place."""
    text = b"\0".join(place)
    return {
        name for name, secret in planted.items() if any(each in text for each in spellings(secret))
    }
