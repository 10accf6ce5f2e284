"""Pre-checks: reject sources that would crash an engine or exhaust its parser."""

from toolbus_codemode.sandbox.program import ProgramError

MAX_SOURCE = 64 << 10
MAX_DEPTH = 200
MAX_OPERATORS = 200
MAX_INDENT = 400
OPENING, CLOSING = "([{", ")]}"


def refused(source: str) -> ProgramError | None:
    """Return the error for which the source is rejected without a run, or None."""
    if len(source.encode(errors="replace")) > MAX_SOURCE:
        return ProgramError(
            "source_too_large",
            f"The program is larger than {MAX_SOURCE >> 10} KB.",
            hint="Send a shorter program; read large data with a tool instead of including it.",
        )
    if "\0" in source or any("\ud800" <= sign <= "\udfff" for sign in source):
        return ProgramError(
            "syntax",
            "The program contains a NUL character or an unpaired surrogate.",
            hint="Send plain text.",
        )
    return too_deep(source)


def too_deep(source: str) -> ProgramError | None:
    """Return an error if brackets, signs or indentation are so deep that a parser can crash."""
    depth = signs = 0
    for line, text in enumerate(source.splitlines(), start=1):
        indent = len(text) - len(text.lstrip(" \t"))
        if indent > MAX_INDENT:
            return nested(line, indent)
        for column, sign in enumerate(text, start=1):
            depth += (sign in OPENING) - (sign in CLOSING)
            signs = signs + 1 if sign in "-+~" else signs if sign == " " else 0
            if depth > MAX_DEPTH or signs > MAX_OPERATORS:
                return nested(line, column)
        depth = max(depth, 0)
    return words(source)


def words(source: str) -> ProgramError | None:
    """Return an error if chains of operators are so long that a parser can crash."""
    for line, text in enumerate(source.splitlines(), start=1):
        for word in (" not ", "lambda", " if ", " else ", "**"):
            if text.count(word) > MAX_DEPTH:
                return nested(line, text.index(word) + 1)
    return None


def nested(line: int, column: int) -> ProgramError:
    """Return the error `too_deep` with its position."""
    return ProgramError(
        "too_deep",
        f"The program is nested more than {MAX_DEPTH} levels deep.",
        line,
        column,
        "Flatten the expression: assign its parts to variables.",
    )
