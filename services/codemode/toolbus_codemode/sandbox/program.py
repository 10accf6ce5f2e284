"""A program to run, what it may call, and how it ended: all that crosses the sandbox's border."""

import keyword
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from hashlib import blake2s
from typing import Any, Literal

Engine = Literal["starlark", "python"]

# What a model may be told went wrong. Everything that can happen has one of these names.
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

# What a server may not be called in a program: it would hide what stands there already.
TAKEN = frozenset({
    "struct", "json", "call", "parallel", "try_call", "print", "result", "map", "filter",
    "partial", "asyncio", "fail", "type", "len", "str", "int", "float", "bool", "list", "dict",
    "tuple", "range", "sorted", "reversed", "enumerate", "zip", "min", "max", "any", "all", "abs",
    "hasattr", "getattr", "dir", "repr", "hash", "chr", "ord",
})  # fmt: skip
RESERVED = frozenset({"load"})  # by Starlark alone; what both reserve, Python's list has
SHOWN_PARAMETERS = 12


def identifier(name: str, taken: Collection[str] = ()) -> str:
    """A name both engines accept for a tool, or a server, unlike those taken.

    Of a name in another script little may be left: a hash of the whole tells it apart.
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
    """An identifier, or the Program is refused: names become source text in the engines."""
    if identifier(name, taken) != name:
        raise ValueError(f"{name!r} is no name for a program; map it with identifier()")


@dataclass(frozen=True, slots=True)
class Function:
    """A tool as a program sees it: its parameters in order, the required ones first."""

    name: str
    tool: str
    parameters: tuple[str, ...] = ()
    required: int = 0

    def __post_init__(self) -> None:
        checked(self.name)

    @property
    def signature(self) -> str:
        """How it is called, as a hint shows it."""
        words = [
            word if place < self.required else f"{word}=…"
            for place, word in enumerate(self.parameters[:SHOWN_PARAMETERS])
        ]
        more = ["…"] if len(self.parameters) > SHOWN_PARAMETERS else []
        return f"{self.name}({', '.join(words + more)})"


@dataclass(frozen=True, slots=True)
class Namespace:
    """A server as a program sees it: a name with functions on it."""

    name: str
    server: str
    functions: tuple[Function, ...]

    def __post_init__(self) -> None:
        checked(self.name, TAKEN)


@dataclass(frozen=True, slots=True)
class Limits:
    """The most a run may use."""

    deadline: float = 30.0
    calls: int = 100
    message: int = 8 << 20
    output: int = 1 << 20
    memory: int = 400 << 20
    cpu: int = 2


@dataclass(frozen=True, slots=True)
class Program:
    """Source, the engine that reads it, the tools it may name, and its limits."""

    source: str
    engine: Engine = "starlark"
    tools: tuple[Namespace, ...] = ()
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call the program asks for. It comes from outside: judge it as such."""

    server: str
    tool: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a call has no value: both words reach the program, so neither may hold a secret."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """What a call came to: a plain JSON value, or a failure."""

    value: Any = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class ProgramError:
    """Why a program ended early, where, and what to do about it."""

    name: ErrorName
    message: str
    line: int | None = None
    column: int | None = None
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended."""

    value: Any = None
    error: ProgramError | None = None
    prints: str = ""
    calls: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
