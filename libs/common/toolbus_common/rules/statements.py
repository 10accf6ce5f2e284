"""The policies of a rule's text with their lines, and the line of an error of Cedar's parser."""

import re
from collections.abc import Iterator

from cedarpy import policies_to_json_str

from toolbus_common.rules.parser import without_hidden

_VISIBLE = re.compile(r"[^\n]")
_AT_TOKEN = ("unexpected token", "invalid token")
_AT_END = "unexpected end of input"


def statements(text: str) -> Iterator[tuple[int, str]]:
    """Yield each policy of a rule's text, and the line on which it begins."""
    bare = without_hidden(text, _blank)
    start = 0
    while start < len(text):
        end = bare.find(";", start) + 1 or len(text)
        first = start + len(bare[start:end]) - len(bare[start:end].lstrip())
        if first < end:
            yield text.count("\n", 0, first) + 1, text[first:end]
        start = end


def line_of(complaint: str, statement: str) -> int:
    """Return the line of a policy, from 0, on which the parser found an error.

    The parser does not report the line. It is the first line such that the text up to its end has
    an error other than a missing end.
    """
    if not complaint.startswith(_AT_TOKEN):
        return 0
    lines = statement.split("\n")
    first, last = 0, len(lines) - 1
    while first < last:
        middle = (first + last) // 2
        if _is_incomplete("\n".join(lines[: middle + 1])):
            first = middle + 1
        else:
            last = middle
    return first


def _is_incomplete(text: str) -> bool:
    try:
        policies_to_json_str(text)
    except ValueError as error:
        return str(error).startswith(_AT_END)
    return False


def _blank(hidden: str) -> str:
    """Return spaces and the line breaks of a text; a quoted text remains visible by its quotes."""
    blank = _VISIBLE.sub(" ", hidden)
    return f'"{blank[1:-1]}"' if hidden.startswith('"') else blank
