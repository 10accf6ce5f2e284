"""JSON for a person who reviews it: indented, with invisible characters shown as codes."""

import unicodedata

import msgspec

# Unicode categories: control and format characters (bidirectional marks, zero widths), surrogates,
# private and unassigned characters, and separators that look like a space or are invisible.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"})


def readable(raw: str) -> str:
    """Return indented JSON. Text that is not JSON is not indented."""
    try:
        formatted = msgspec.json.format(raw.encode(), indent=2).decode()
    except (msgspec.DecodeError, RecursionError):
        formatted = raw
    return visible(formatted, keep="\n")


def visible(text: str, keep: str = "") -> str:
    """Return the text with invisible and layout-changing characters shown as codes.

    The characters in `keep` are not changed.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        each
        if each in keep or each == " " or unicodedata.category(each) not in _INVISIBLE
        else f"\\u{{{ord(each):04x}}}"
        for each in text
    )
