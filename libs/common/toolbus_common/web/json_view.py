"""JSON for a person who must judge it: laid out, and nothing invisible left unseen. Pure."""

import unicodedata

import msgspec

# Controls, formats (bidirectional marks, zero widths), surrogates, private and unassigned
# characters, and the separators that look like a space or like nothing.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"})


def readable(raw: str) -> str:
    """Raw JSON, indented; text that is no whole JSON as it is."""
    try:
        laid_out = msgspec.json.format(raw.encode(), indent=2).decode()
    except (msgspec.DecodeError, RecursionError):
        laid_out = raw
    return visible(laid_out, keep="\n")


def visible(text: str, keep: str = "") -> str:
    """The text with every character that shows nothing, or moves what does, spelled out."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        each
        if each in keep or each == " " or unicodedata.category(each) not in _UNSEEN
        else f"\\u{{{ord(each):04x}}}"
        for each in text
    )
