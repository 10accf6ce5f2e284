"""What a request asks to be kept within, by its own headers: it can only take away."""

from re import fullmatch

import msgspec

from toolbus_common.access.tool_patterns import SEPARATOR
from toolbus_common.config import Patterns
from toolbus_common.errors import InvalidError
from toolbus_common.mcp.builtin_server import Mode
from toolbus_common.mcp.code_mode_options import NO_TERMS, Terms
from toolbus_ingress.http.request_guard import Headers

SERVERS, TOOLS = b"x-toolbus-servers", b"x-toolbus-tools"
PROGRAM = b"x-toolbus-program"
CAPS = {"usd": r"\d{1,7}(\.\d{1,6})?", "calls": r"\d{1,5}", "seconds": r"\d{1,5}(\.\d{1,3})?"}
MOST_PATTERNS = 64
LONGEST_PATTERN = 256


def restriction_of(headers: Headers) -> tuple[Patterns, ...]:
    """The bounds a request sets itself, over full names. Raises `InvalidError`.

    `x-toolbus-servers` and `x-toolbus-tools` are lists with commas and may hold `*` and `?`; an
    empty list leaves nothing.
    """
    restriction: list[Patterns] = []
    if SERVERS in headers:
        restriction.append(tuple(f"{name}{SEPARATOR}*" for name in _listed(headers, SERVERS)))
    if TOOLS in headers:
        restriction.append(_listed(headers, TOOLS))
    return tuple(restriction)


def asked_terms(headers: Headers, mode: Mode) -> Terms:
    """How a request sees tools, and its caps on programs. Raises `InvalidError`.

    `x-toolbus-program: usd=0.10, calls=20, seconds=10` lowers what its key allows one program.
    """
    if PROGRAM not in headers:
        return NO_TERMS if mode is Mode.TOOLS else Terms(mode)
    told: dict[str, float] = {}
    for part in headers[PROGRAM].decode("latin-1").split(","):
        name, _, number = (each.strip() for each in part.partition("="))
        if name not in CAPS or name in told or not fullmatch(CAPS[name], number):
            raise InvalidError(
                f"{PROGRAM.decode()} is written so: 'usd=0.10, calls=20, seconds=10', each at most "
                "once and calls a whole number."
            )
        told[name] = float(number) if "." in number else int(number)
    return msgspec.convert({"mode": mode, **told}, Terms)


def _listed(headers: Headers, name: bytes) -> Patterns:
    told = [part.strip() for part in headers[name].decode("latin-1").split(",")]
    patterns = tuple(part for part in told if part)
    if len(patterns) > MOST_PATTERNS or any(len(each) > LONGEST_PATTERN for each in patterns):
        raise InvalidError(
            f"{name.decode()} may hold {MOST_PATTERNS} patterns of at most {LONGEST_PATTERN} "
            "characters; send fewer or use wildcards."
        )
    return patterns
