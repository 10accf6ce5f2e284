"""Options of a request for the built-in server: the mode, and limits of one program.

Ingress writes the options as raw JSON in `CallRequested.terms`, and only codemode reads them.
"""

import msgspec

from toolbus_common.mcp.builtin_server import Mode


class RunTerms(msgspec.Struct, frozen=True):
    """What a run of agent mode sets for its program. The program reports what it has used.

    `calls_per_tool` is the maximum of the whole run, and `used` counts its calls by full name.
    """

    calls_per_tool: int
    used: dict[str, int]


class CodeModeOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """The mode, and the limits of one program. They can only lower the limits of its key.

    `run` is set only by codemode, for the program of a run of agent mode.
    """

    mode: Mode = Mode.TOOLS
    usd: float | None = None
    calls: int | None = None
    seconds: float | None = None
    run: RunTerms | None = None

    def encode(self) -> str:
        """Return the wire form; empty for the default options."""
        return "" if self == NO_OPTIONS else _encode(self).decode()


NO_OPTIONS = CodeModeOptions()
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(CodeModeOptions).decode


def decode_options(raw: str) -> CodeModeOptions:
    """Return the options of a wire form. An empty wire form has the default options."""
    return _decode(raw) if raw else NO_OPTIONS
