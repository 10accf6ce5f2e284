"""Errors of programs, with hints for the model in terms of the program's language."""

import difflib
import re
import signal

from toolbus_codemode.sandbox.call_correction import corrected
from toolbus_codemode.sandbox.language_hints import await_hint, language_hint
from toolbus_codemode.sandbox.program import ErrorName, Function, Limits, Program, ProgramError
from toolbus_codemode.sandbox.protocol import OUT_OF_MEMORY, ProgramFailed

HOST_NAMES = {
    "starlark": ("call", "try_call", "parallel", "print", "json", "struct", "map", "filter"),
    "python": ("print", "import asyncio"),
}
SHOWN = 8
CLOSE = 0.5
NAMES: frozenset[str] = frozenset(ErrorName.__args__)  # type: ignore[attr-defined]
UNKNOWN = re.compile(
    r"Variable `(?P<variable>\w+)` not found|no attribute [`'](?P<attribute>\w+)[`']"
    r"|name '(?P<name>\w+)' is not defined"
)
# The messages of both engines if a program used a server's name as a function or a dictionary.
NOT_A_FUNCTION = re.compile(
    r"Operation `(?:\[\]|call\(\))` not supported (?:for types|on type) `struct`"
    r"|object is not (?:subscriptable|callable)"
)
MISUSED = re.compile(r"The usage of (\w+) is")  # a function of the prelude
HINTS: dict[str, str] = {
    "syntax": "Correct the named line and send the program again.",
    "memory": "Use less data at once: request fewer rows from tools, and discard values that "
    "are not needed.",
    "time": "Do less in one program, request less data, or make calls with parallel([...]).",
    "too_deep": "Use a loop instead of recursion, and flatten nested values.",
    "too_many_calls": "Make fewer calls: request several items in one call, or split the program.",
    "output_too_large": "Return and print only what is needed: select fields, count, or return a "
    "part.",
    "message_too_large": "Pass smaller arguments, or request less data from the tool.",
    "not_plain": "Build `result` only from lists, dicts with string keys, strings, numbers, "
    "booleans and None.",
    "crashed": "Simplify the program; an unusual construct crashed the engine.",
    "runtime": "Correct the named line and send the program again.",
}
CATCHING = {
    "starlark": "To continue after a failure, use try_call(server.tool, name=value): it has .ok,"
    " .value and .error.",
    "python": "To continue after a failure, put the call into try/except RuntimeError as error.",
}
TOOL_PATH = re.compile(r"\b(?<!\.)\w+\.\w+(?=\()")
LOOP = re.compile(r"\b(?:for|while|def|lambda)\b")
# The tool exists, but the program imported another module under the server's name.
HIDDEN = (
    "The program's own `import {0}` hides the server {0}: remove it, or write"
    " `import {0} as lib_{0}`."
)
DEATHS: dict[int, tuple[ErrorName, str]] = {
    -OUT_OF_MEMORY: ("memory", "The program exceeded its memory limit."),
    signal.SIGABRT: ("memory", "The program exceeded its memory limit."),
    signal.SIGKILL: ("memory", "The program was ended because it exceeded its memory limit."),
    signal.SIGSEGV: ("too_deep", "The program is nested too deeply, or its recursion is too deep."),
    signal.SIGBUS: ("too_deep", "The program is nested too deeply, or its recursion is too deep."),
    signal.SIGSYS: ("crashed", "The program was ended because it caused a forbidden system call."),
}


def death(status: int | None, limits: Limits) -> ProgramError:
    """Return the error for a child that ended without a message."""
    if status == -signal.SIGXCPU:
        return plain("time", f"The program used more than {limits.cpu} s of processor time.")
    name, message = DEATHS.get(-(status or 0), ("crashed", "The program's engine crashed."))
    return plain(name, message)


def plain(name: ErrorName, message: str) -> ProgramError:
    """Return an error without a position."""
    return ProgramError(name, message, hint=HINTS.get(name, ""))


def late(limits: Limits) -> ProgramError:
    """Return the error of a run that exceeded its deadline."""
    return plain("time", f"The program took longer than {limits.deadline:g} s.")


def explained(failed: ProgramFailed, program: Program) -> ProgramError:
    """Convert a child's failure to an error with a hint."""
    if hint := language_hint(failed, program):
        return ProgramError(_name(failed), failed.message, failed.line, failed.column, hint)
    if failed.name == "unknown_name":
        return unknown(failed, program)
    name = _name(failed)
    hint = HINTS.get(name, "")
    if name == "wrong_argument":
        hint = arguments_hint(failed, program)
    elif name == "tool_failed":
        hint = failure_hint(failed, program)
    elif "'coroutine' object" in failed.message or "not awaited" in failed.message:
        hint = await_hint(failed, program)
    elif name == "runtime" and NOT_A_FUNCTION.search(failed.message):
        hint = corrected(program, failed.line) or hint
    return ProgramError(name, failed.message, failed.line, failed.column, hint)


def _name(failed: ProgramFailed) -> ErrorName:
    return failed.name if failed.name in NAMES else "crashed"  # type: ignore[return-value]


def arguments_hint(failed: ProgramFailed, program: Program) -> str:
    """Return a hint with the corrected call and the signature of its tool."""
    prelude = MISUSED.search(failed.message)
    misused = failed.subject or (prelude[1] if prelude else "")
    line = corrected(program, failed.line, misused) if misused else ""
    if line and not failed.subject:
        return line
    return f"{line}\n{usage(failed.subject, program)}".lstrip()


def failure_hint(failed: ProgramFailed, program: Program) -> str:
    """Return a hint for a failed call.

    A program of one call has nothing to continue with, and would hide the failure by catching it.
    """
    known = {f"{space.name}.{each.name}" for space in program.tools for each in space.functions}
    used = [path for path in TOOL_PATH.findall(program.source) if path in known]
    if failed.subject != "tool_error" or len(used) != 1 or LOOP.search(program.source):
        return CATCHING[program.engine]
    space = used[0].partition(".")[0]
    others = [each for each in known if each.startswith(f"{space}.") and each != used[0]]
    near = f" {space} also has {listed(others)}." if others else ""
    return f"Correct the arguments of {used[0]}, or call another tool.{near}"


def usage(subject: str, program: Program) -> str:
    """Return a hint with the signature of a tool."""
    space, _, name = subject.partition(".")
    for each in functions(program, space):
        if each.name == name:
            return f"Usage: {space}.{each.signature}"
    return "The message shows its usage."


def functions(program: Program, space: str) -> tuple[Function, ...]:
    """Return the functions of one namespace."""
    return next((each.functions for each in program.tools if each.name == space), ())


def unknown(failed: ProgramFailed, program: Program) -> ProgramError:
    """Return the error for an unknown name.

    The error is `unknown_tool` if the name follows a server, or resembles a tool or server.
    """
    found = UNKNOWN.search(failed.message)
    missed = next((word for word in found.groups() if word), "") if found else ""
    space = owner(missed, failed.line, program)
    # The call is correct if an import hides its server, or the program renamed its server.
    well = any(each.name == missed for each in functions(program, space)) or renamed(space, program)
    line = corrected(program, failed.line, missed) if missed and not well else ""
    if space:
        return ProgramError(
            "unknown_tool",
            f"{space} has no tool {missed!r}.",
            failed.line,
            failed.column,
            line or nearest(missed, space, program),
        )
    is_tool = bool(line) or bool(elsewhere(missed, program))
    name: ErrorName = "unknown_tool" if is_tool else "unknown_name"
    message = failed.message.split(", did you mean", 1)[0]
    hint = line or what_exists(missed, program)
    return ProgramError(name, message, failed.line, failed.column, hint)


def owner(missed: str, line: int | None, program: Program) -> str:
    """Return the server before the missing name on the line, or an empty text."""
    lines = program.source.splitlines()
    text = lines[line - 1] if line and line <= len(lines) else program.source
    spaces = {space.name for space in program.tools}
    before = re.findall(rf"\b(\w+)\s*\.\s*{re.escape(missed)}\b", text) if missed else []
    return next((name for name in before if name in spaces), "")


def nearest(missed: str, space: str, program: Program) -> str:
    """Return a hint with the signatures of the server's tools that have similar names."""
    known = {each.name: each for each in functions(program, space)}
    if missed in known:
        return HIDDEN.format(space)
    close = difflib.get_close_matches(missed, known, n=3, cutoff=CLOSE)
    if close:
        return "Did you mean " + " or ".join(f"{space}.{known[n].signature}" for n in close) + "?"
    if name := renamed(space, program):
        return f"In programs, the server {space!r} is called {name}."
    return f"The tools of {space} are {listed(known)}."


def renamed(server: str, program: Program) -> str:
    """Return what programs call a server that another namespace hides, or an empty text."""
    names = (each.name for each in program.tools if each.server == server != each.name)
    return next(names, "") if server else ""


def elsewhere(missed: str, program: Program) -> list[str]:
    """Return tools with the unknown name. If there are none, return servers with similar names.

    `missed` is the unknown name.
    """
    names = {f"{space.name}.{each.name}" for space in program.tools for each in space.functions}
    exact = [name for name in sorted(names) if name.endswith(f".{missed}")]
    spaces = [space.name for space in program.tools]
    return exact[:SHOWN] or difflib.get_close_matches(missed, spaces, n=3, cutoff=0.7)


def what_exists(missed: str, program: Program) -> str:
    """Return a hint with similar names, else with all servers and built-in names."""
    if close := elsewhere(missed, program):
        return "Did you mean " + " or ".join(close) + "?"
    servers = listed([space.name for space in program.tools]) or "none"
    return f"Available are the servers {servers}, and {', '.join(HOST_NAMES[program.engine])}."


def listed(names: object) -> str:
    """Join the first `SHOWN` names; the number of other names is appended."""
    known = sorted(names)  # type: ignore[call-overload]
    more = f" and {len(known) - SHOWN} more" if len(known) > SHOWN else ""
    return ", ".join(known[:SHOWN]) + more
