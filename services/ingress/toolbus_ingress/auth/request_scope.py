"""Restrictions and code-mode options from a request's own headers; they never add rights."""

from re import fullmatch

import msgspec

from toolbus_common.access.tool_patterns import SEPARATOR
from toolbus_common.config import Injection, Patterns
from toolbus_common.errors import InvalidError
from toolbus_common.mcp.builtin_server import Mode
from toolbus_common.mcp.code_mode_options import NO_OPTIONS, CodeModeOptions
from toolbus_ingress.http.request_guard import Headers

SERVERS, TOOLS = b"x-toolbus-servers", b"x-toolbus-tools"
MODELS = b"x-toolbus-models"
INJECT = b"x-toolbus-inject"
PROGRAM = b"x-toolbus-program"
LIMITS = {"usd": r"\d{1,7}(\.\d{1,6})?", "calls": r"\d{1,5}", "seconds": r"\d{1,5}(\.\d{1,3})?"}
MAX_PATTERNS = 64
LONGEST_PATTERN = 256


def restrictions_of(headers: Headers) -> tuple[Patterns, ...]:
    """Return the restrictions that a request sets for itself, as patterns of full tool names.

    `x-toolbus-servers` and `x-toolbus-tools` are comma-separated lists with wildcards `*`, `?`;
    an empty list allows nothing.

    Raises:
        InvalidError: a list is too long.

    """
    restrictions: list[Patterns] = []
    if SERVERS in headers:
        restrictions.append(tuple(f"{name}{SEPARATOR}*" for name in _patterns(headers, SERVERS)))
    if TOOLS in headers:
        restrictions.append(_patterns(headers, TOOLS))
    return tuple(restrictions)


def model_restrictions_of(headers: Headers) -> tuple[Patterns, ...]:
    """Return the restrictions that a model request sets for itself, as patterns of model names.

    `x-toolbus-models` has the form of the lists of `restrictions_of`. A name is an alias or
    `provider/model`.

    Raises:
        InvalidError: the list is too long.

    """
    return (_patterns(headers, MODELS),) if MODELS in headers else ()


def injection_of(headers: Headers, configured: Injection | None) -> Mode | None:
    """Return which tools to add to a model request; None for none.

    `x-toolbus-inject: tools|code|search|none` replaces the setting of the key.

    Raises:
        InvalidError: the header has another value.

    """
    if INJECT not in headers:
        return Mode(configured) if configured is not None else None
    requested = headers[INJECT].decode("latin-1").strip().lower()
    if requested == "none":
        return None
    try:
        return Mode(requested)
    except ValueError as error:
        raise InvalidError(
            f"Invalid header {INJECT.decode()}. Use 'tools', 'code', 'search' or 'none'."
        ) from error


def code_mode_options_of(headers: Headers, mode: Mode) -> CodeModeOptions:
    """Return the mode and the limits on programs that a request sets for itself.

    `x-toolbus-program: usd=0.10, calls=20, seconds=10` lowers the key's limits for one
    program.

    Raises:
        InvalidError: the header is malformed.

    """
    if PROGRAM not in headers:
        return NO_OPTIONS if mode is Mode.TOOLS else CodeModeOptions(mode)
    limits: dict[str, float] = {}
    for part in headers[PROGRAM].decode("latin-1").split(","):
        name, _, number = (each.strip() for each in part.partition("="))
        if name not in LIMITS or name in limits or not fullmatch(LIMITS[name], number):
            raise InvalidError(
                f"Invalid header {PROGRAM.decode()}. Write it as 'usd=0.10, calls=20, seconds=10', "
                "with each limit at most once and calls as a whole number."
            )
        limits[name] = float(number) if "." in number else int(number)
    return msgspec.convert({"mode": mode, **limits}, CodeModeOptions)


def _patterns(headers: Headers, name: bytes) -> Patterns:
    parts = [part.strip() for part in headers[name].decode("latin-1").split(",")]
    patterns = tuple(part for part in parts if part)
    if len(patterns) > MAX_PATTERNS or any(len(each) > LONGEST_PATTERN for each in patterns):
        raise InvalidError(
            f"{name.decode()} can have at most {MAX_PATTERNS} patterns of at most "
            f"{LONGEST_PATTERN} "
            "characters. Send fewer, or use wildcards."
        )
    return patterns
