"""What a request asks to be kept within, by its own headers: it can only take away."""

from toolbus_common.declared import Patterns
from toolbus_common.errors import InvalidError
from toolbus_common.grants import SEPARATOR
from toolbus_ingress.guard import Headers

SERVERS, TOOLS = b"x-toolbus-servers", b"x-toolbus-tools"
MOST_PATTERNS = 64
LONGEST_PATTERN = 256


def narrower_of(headers: Headers) -> tuple[Patterns, ...]:
    """The bounds a request sets itself, over full names. Raises `InvalidError`.

    `x-toolbus-servers` and `x-toolbus-tools` are lists with commas and may hold `*` and `?`; an
    empty list leaves nothing.
    """
    narrower: list[Patterns] = []
    if SERVERS in headers:
        narrower.append(tuple(f"{name}{SEPARATOR}*" for name in _listed(headers, SERVERS)))
    if TOOLS in headers:
        narrower.append(_listed(headers, TOOLS))
    return tuple(narrower)


def _listed(headers: Headers, name: bytes) -> Patterns:
    told = [part.strip() for part in headers[name].decode("latin-1").split(",")]
    patterns = tuple(part for part in told if part)
    if len(patterns) > MOST_PATTERNS or any(len(each) > LONGEST_PATTERN for each in patterns):
        raise InvalidError(
            f"{name.decode()} may hold {MOST_PATTERNS} patterns of at most {LONGEST_PATTERN} "
            "characters; send fewer or use wildcards."
        )
    return patterns
