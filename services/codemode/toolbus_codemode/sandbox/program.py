"""Programs, the tools they may call, and their results: the interface of the sandbox."""

import keyword
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from hashlib import blake2s
from typing import Any, Literal

Engine = Literal["starlark", "python"]

# Error names that a model may receive; every error has one of them.
ErrorName = Literal[
    "syntax",
    "unknown_tool",
    "unknown_name",
    "wrong_argument",
    "tool_failed",
    "runtime",
    "memory",
    "time",
    "too_deep",
    "too_many_calls",
    "output_too_large",
    "message_too_large",
    "source_too_large",
    "not_plain",
    "crashed",
    "unavailable",
]

# Identifiers that no server may have, because they would hide built-in names.
TAKEN = frozenset({
    "struct", "json", "call", "parallel", "try_call", "print", "result", "map", "filter",
    "partial", "asyncio", "fail", "type", "len", "str", "int", "float", "bool", "list", "dict",
    "tuple", "range", "sorted", "reversed", "enumerate", "zip", "min", "max", "any", "all", "abs",
    "hasattr", "getattr", "dir", "repr", "hash", "chr", "ord",
})  # fmt: skip
RESERVED = frozenset({"load"})  # in Starlark only; Python's keywords are checked too
SHOWN_PARAMETERS = 12


def identifier(name: str, taken: Collection[str] = ()) -> str:
    """Return an identifier that both engines accept and that is not in `taken`.

    A name with characters outside ASCII gets a hash of the name, so that it remains distinct.
    """
    plain = re.sub(r"\W", "_", name, flags=re.ASCII).strip("_") or "tool"
    if not name.isascii():
        plain = f"{plain}_{blake2s(name.encode(), digest_size=4).hexdigest()}"
    if plain[0].isdigit() or keyword.iskeyword(plain) or plain in RESERVED:
        plain = f"t_{plain}"
    numbered, number = plain, 2
    while numbered in taken:
        numbered, number = f"{plain}_{number}", number + 1
    return numbered


def checked(name: str, taken: Collection[str] = ()) -> None:
    """Check that a name is an identifier, because engines insert it into source text.

    Raises `ValueError` if it is not.
    """
    if identifier(name, taken) != name:
        raise ValueError(f"{name!r} is not an identifier; map it with identifier()")


@dataclass(frozen=True, slots=True)
class Function:
    """Tool as a function of a program; the first `required` parameters are required."""

    name: str
    tool: str
    parameters: tuple[str, ...] = ()
    required: int = 0

    def __post_init__(self) -> None:
        checked(self.name)

    @property
    def signature(self) -> str:
        """The signature with parameter names, for hints."""
        words = [
            word if place < self.required else f"{word}=…"
            for place, word in enumerate(self.parameters[:SHOWN_PARAMETERS])
        ]
        more = ["…"] if len(self.parameters) > SHOWN_PARAMETERS else []
        return f"{self.name}({', '.join(words + more)})"


@dataclass(frozen=True, slots=True)
class Namespace:
    """Server as a namespace of functions in a program."""

    name: str
    server: str
    functions: tuple[Function, ...]

    def __post_init__(self) -> None:
        checked(self.name, TAKEN)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a run, in seconds, calls and bytes."""

    deadline: float = 30.0
    calls: int = 100
    message: int = 8 << 20
    output: int = 1 << 20
    memory: int = 400 << 20
    cpu: int = 2


@dataclass(frozen=True, slots=True)
class Program:
    """Source, engine, available tools, and limits."""

    source: str
    engine: Engine = "starlark"
    tools: tuple[Namespace, ...] = ()
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """Call that a program requested; its contents are untrusted."""

    server: str
    tool: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Failure:
    """Failure of a call; the program sees code and message, so neither may contain a secret."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """Outcome of a call: a JSON value or a failure."""

    value: Any = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class ProgramError:
    """Error of a program, its position, and a hint."""

    name: ErrorName
    message: str
    line: int | None = None
    column: int | None = None
    hint: str = ""


@dataclass(frozen=True, slots=True)
class ProgramResult:
    """Result of a run."""

    value: Any = None
    error: ProgramError | None = None
    prints: str = ""
    calls: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
