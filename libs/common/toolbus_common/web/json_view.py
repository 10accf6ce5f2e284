"""Format JSON for a person who reviews it: indented, invisible characters spelled out. Pure."""

import unicodedata

import msgspec

# Controls, formats (bidirectional marks, zero widths), surrogates, private and unassigned
# characters, and the separators that look like a space or like nothing.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"})


def readable(raw: str) -> str:
    """Return JSON indented. Text that is not JSON is returned unchanged."""
    try:
        formatted = msgspec.json.format(raw.encode(), indent=2).decode()
    except (msgspec.DecodeError, RecursionError):
        formatted = raw
    return visible(formatted, keep="\n")


def visible(text: str, keep: str = "") -> str:
    """Return the text with invisible and layout-changing characters spelled out."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        each
        if each in keep or each == " " or unicodedata.category(each) not in _INVISIBLE
        else f"\\u{{{ord(each):04x}}}"
        for each in text
    )
