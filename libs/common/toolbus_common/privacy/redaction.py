"""Redaction of secrets and common personal data in JSON, in linear time.

Data is recognized by its form. Names, street addresses and other data without a fixed form are not
redacted. To avoid storing them, record only digests.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import msgspec

STRUCK = "[redacted]"
LARGEST = 16 * 1024  # bytes; longer text is not parsed, because a call waits for the result
MIN_CARD = 10**12  # card numbers have at least 13 digits
DEEPEST = 64
_NAMED = re.compile(
    r"passw(?:or)?d|passphrase|secret|token|api[_-]?key|authorization|cookie|private[_-]?key"
    r"|credential|\bpin\b|\bcvv\b|\bssn\b|session[_-]?id",
    re.IGNORECASE,
)
_NO_SECRET = re.compile(
    r"(?:max|min|num|total|count|next|page|prev\w*)_?tokens?|tokens", re.IGNORECASE
)


def _luhn(found: str) -> bool:
    digits = [int(each) for each in reversed(found) if each.isdigit()]
    doubled = [sum(divmod(2 * each, 10)) for each in digits[1::2]]
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0


def _iban(found: str) -> bool:
    plain = found.replace(" ", "")
    return int("".join(str(int(each, 36)) for each in plain[4:] + plain[:4])) % 97 == 1


def _always(_found: str) -> bool:
    return True


class _Form(NamedTuple):
    """A form of sensitive text. Every match contains one of `markers`, in lower case."""

    markers: tuple[str, ...]
    pattern: re.Pattern[str]
    is_one: Callable[[str], bool] = _always


# Every repetition is bounded or can start in one position only, so that matching is linear.
_LETTERED = tuple(
    _Form(markers, re.compile(pattern), *more)
    for markers, pattern, *more in (
        (
            ("private key",),
            r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----[^-]*(?:-----END[A-Z ]{0,48}-----)?",
        ),
        (("bearer", "basic"), r"(?i)\b(?:bearer|basic)\s{1,4}[a-z0-9._~+/=-]{8,}"),
        (("eyj",), r"\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)?"),
        (("akia", "asia"), r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
        (
            ("gh", "github_pat_", "glpat-", "npm_", "pypi-"),
            r"\b(?:gh[pousr]_|github_pat_|glpat-|npm_|pypi-)[A-Za-z0-9_-]{16,}",
        ),
        (("sk", "rk", "pk"), r"\b(?:sk|rk|pk)[-_][A-Za-z0-9_-]{16,}"),
        (("xox",), r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}"),
        (("aiza",), r"\bAIza[A-Za-z0-9_-]{30,}"),
        (("tbk_", "tba_"), r"\btb[ka]_[A-Za-z0-9_-]{16,}"),
        (("://",), r"(?<=://)[^/\s:@]{1,128}:[^/\s@]{1,256}(?=@)"),
        (
            ("@",),
            r"(?<![\w.%+-])[\w.%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}",
        ),
    )
)
_DIGITS = re.compile(r"\d[\dA-Z ().:/-]{5}")  # every numbered form contains such a text
_NUMBERED = tuple(
    _Form((), re.compile(pattern), *more)
    for pattern, *more in (
        (r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b", _iban),
        (r"(?<![\w.-])(?:\d[ -]?){12,18}\d(?![\w-])", _luhn),
        (r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])",),
        (r"(?<![\w+])(?:\+|00)\d[\d ()./-]{6,18}\d(?!\w)",),
        (r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.])",),
    )
)


def redacted(text: bytes) -> str:
    """Return the JSON with sensitive data redacted; empty if it is too long or not valid JSON."""
    if len(text) > LARGEST:
        return ""
    try:
        value = msgspec.json.decode(text)
        # First exclude the forms that cannot occur. Most texts contain none of the forms.
        forms = _possible(msgspec.json.encode(value).decode())
        return msgspec.json.encode(_without(value, forms, DEEPEST)).decode()
    except (msgspec.MsgspecError, RecursionError):
        return ""


def struck(text: str) -> str:
    """Return the text with all sensitive data redacted."""
    return _struck(text, _possible(text))


def _possible(text: str) -> list[_Form]:
    lowered = text.lower()
    forms = [form for form in _LETTERED if any(markers in lowered for markers in form.markers)]
    return [*forms, *_NUMBERED] if _DIGITS.search(text) else forms


def _struck(text: str, forms: list[_Form]) -> str:
    for form in forms:
        text = form.pattern.sub(partial(_replacement, form), text)
    return text


def _replacement(form: _Form, found: re.Match[str]) -> str:
    return STRUCK if form.is_one(found[0]) else found[0]


def _without(value: Any, forms: list[_Form], depth: int) -> Any:
    if depth == 0:
        return STRUCK
    if isinstance(value, str):
        return _struck(value, forms) if forms else value
    if isinstance(value, dict):
        return {
            _struck(name, forms): _member(name, each, forms, depth - 1)
            for name, each in value.items()
        }
    if isinstance(value, list):
        return [_without(each, forms, depth - 1) for each in value]
    if isinstance(value, int) and value >= MIN_CARD:
        return STRUCK if _luhn(str(value)) else value
    return value


def _member(name: str, value: Any, forms: list[_Form], depth: int) -> Any:
    """Return a member's value with sensitive data redacted.

    If the name of the member is that of a secret, the whole value is redacted.
    """
    secret = _NAMED.search(name[:256]) and not _NO_SECRET.fullmatch(name[:256])
    harmless = value in (None, "", True, False)
    return STRUCK if secret and not harmless else _without(value, forms, depth)
