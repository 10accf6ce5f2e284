"""Encoding of arguments in OpenAPI's parameter styles.

Values cannot change other parts of a request.
"""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote

import msgspec

from toolbus_common.openapi import Parameter

LONGEST_VALUE = 8 * 1024  # bytes of one argument in a path, a query or a header
DEEPEST = 8
MAX_DECODINGS = 4
_RESERVED = ":/?@!$'()*,;[]"  # for allowReserved, without & = + # because these end a value
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_encode = msgspec.json.Encoder().encode

Pairs = list[tuple[str, str]]  # percent-encoded names and values of a query or a form


class ArgumentError(ValueError):
    """An argument cannot be sent. The message is the reason."""


def quoted(value: Any, *, safe: str = "") -> str:
    """Return a value, percent-encoded except for letters, digits, `-._~` and `safe`."""
    return quote(text_of(value), safe=safe, errors="replace")


def text_of(value: Any) -> str:
    """Return a value as text. A list or an object is encoded as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else _encode(value).decode()


def in_path(parameter: Parameter, value: Any) -> str:
    """Return a value encoded for its position in the path. Raises `ArgumentError`."""
    if parameter.as_json:
        return _bounded(parameter, quoted(_encode(value).decode()))
    _refuse_leaving(parameter, value)
    first, between = {"label": (".", "."), "matrix": (";", ";")}.get(parameter.style, ("", ","))
    between = between if parameter.explode else ","
    name = f"{quoted(parameter.name)}=" if parameter.style == "matrix" else ""
    if isinstance(value, dict):
        sign = "=" if parameter.explode else ","
        parts = [f"{quoted(key)}{sign}{quoted(each)}" for key, each in value.items()]
        name = "" if parameter.explode else name
    else:
        parts = [quoted(each) for each in (value if isinstance(value, list) else [value])]
        if parameter.explode and name:
            parts, name = [f"{name}{each}" for each in parts], ""
    return _bounded(parameter, f"{first}{name}{between.join(parts)}")


def in_query(parameter: Parameter, value: Any) -> Pairs:
    """Return a value as pairs of a query. Raises `ArgumentError`."""
    safe = _RESERVED if parameter.reserved else ""
    name = quoted(parameter.name)
    if parameter.as_json:
        pairs = [(name, quoted(_encode(value).decode()))]
    elif parameter.style == "deepObject" and isinstance(value, dict):
        pairs = list(_deep(name, value, safe))
    elif isinstance(value, dict) and parameter.explode:
        pairs = [(quoted(key), quoted(each, safe=safe)) for key, each in value.items()]
    elif isinstance(value, list) and parameter.explode:
        pairs = [(name, quoted(each, safe=safe)) for each in value]
    elif isinstance(value, dict | list):
        between = {"spaceDelimited": "%20", "pipeDelimited": "%7C"}.get(parameter.style, ",")
        pairs = [(name, between.join(quoted(each, safe=safe) for each in _flat(value)))]
    else:
        pairs = [(name, quoted(value, safe=safe))]
    if sum(len(key) + len(each) for key, each in pairs) > LONGEST_VALUE:
        raise ArgumentError(f"{parameter.argument} is longer than {LONGEST_VALUE} bytes")
    return pairs


def in_header(parameter: Parameter, value: Any) -> str:
    """Return a value as the value of a header, on one line. Raises `ArgumentError`."""
    if parameter.as_json:
        text = _encode(value).decode()
    elif isinstance(value, dict) and parameter.explode:
        text = ",".join(f"{key}={text_of(each)}" for key, each in value.items())
    else:
        text = ",".join(text_of(each) for each in _flat(value))
    if _CONTROL.search(text):
        raise ArgumentError(
            f"{parameter.argument} contains a line break or another control character; remove it"
        )
    return _bounded(parameter, text.strip())


def in_cookie(parameter: Parameter, value: Any) -> Pairs:
    """Return a value as cookies. Raises `ArgumentError`."""
    return in_query(parameter, value)


def form_pairs(body: dict[str, Any], joined: tuple[str, ...]) -> Pairs:
    """Return the pairs of a form. A list repeats its name, and an object is encoded as JSON.

    The lists in `joined` become one value, separated with commas.
    """
    pairs: Pairs = []
    for name, value in body.items():
        each = value if isinstance(value, list) and name not in joined else [value]
        flat = [",".join(map(text_of, one)) if isinstance(one, list) else one for one in each]
        pairs += [(quoted(name), quoted(one)) for one in flat]
    return pairs


def _flat(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [each for pair in value.items() for each in pair]
    return value if isinstance(value, list) else [value]


def _deep(name: str, value: Any, safe: str, depth: int = 0) -> Iterator[tuple[str, str]]:
    if depth > DEEPEST:
        raise ArgumentError(f"an argument is nested deeper than {DEEPEST}; flatten it")
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _deep(f"{name}%5B{quoted(key)}%5D", each, safe, depth + 1)
    elif isinstance(value, list):
        for each in value:
            yield from _deep(name, each, safe, depth + 1)
    else:
        yield name, quoted(value, safe=safe)


def _bounded(parameter: Parameter, text: str) -> str:
    if len(text) > LONGEST_VALUE:
        raise ArgumentError(f"{parameter.argument} is longer than {LONGEST_VALUE} bytes")
    return text


def _refuse_leaving(parameter: Parameter, value: Any) -> None:
    """Raise `ArgumentError` if the value could change the path.

    A server can decode a value several times, so each decoded form is checked.
    """
    for each in _flat(value) or [""]:
        text = text_of(each)
        if not text:
            raise ArgumentError(
                f"{parameter.argument} is empty, which would change the path; give a value"
            )
        for _ in range(MAX_DECODINGS):
            steps = re.split(r"[/\\]", text)
            if _CONTROL.search(text) or any(step in (".", "..") for step in steps):
                raise ArgumentError(
                    f"{parameter.argument} would change the path; give another value"
                )
            text = unquote(text)
