"""Visible names for control, zero-width, bidirectional and look-alike characters."""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

_OPEN, _CLOSE, BREAK = "⟨", "⟩", "⏎"
_OWN = frozenset((_OPEN, _CLOSE, BREAK))  # in a text, they could imitate the marks of this module
_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"))
_CONTROLS = {
    0x00: "NULL", 0x07: "BELL", 0x08: "BACKSPACE", 0x09: "TAB", 0x0A: "LINE FEED",
    0x0D: "CARRIAGE RETURN", 0x1B: "ESCAPE", 0x7F: "DELETE", 0x9B: "CONTROL SEQUENCE INTRODUCER",
}  # fmt: skip
_KINDS = {"Cc": "CONTROL", "Cs": "SURROGATE", "Co": "PRIVATE USE", "Cn": "UNASSIGNED"}
# Letters and marks that have no visible form, although their category is visible.
_BLANK = frozenset(
    (
        0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, *range(0x180B, 0x1810), 0x2800, 0x3164,
        *range(0xFE00, 0xFE10), 0xFFA0, *range(0xE0100, 0xE01F0),
    )
)  # fmt: skip

_WORD = re.compile(r"\w+")
# Scripts with letters that resemble letters of another script.
_ALIKE = frozenset(("LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "CHEROKEE", "COPTIC", "LISU"))
# Letters of other scripts that look Latin; a word of only these letters looks like a Latin word.
_DRAWN_LATIN = frozenset("аеорсухіјѕһԁԛԝӏАВЕКМНОРСТУХІЈЅԌѴονρΑΒΕΖΗΙΚΜΝΟΡΤΥΧոսօԱՕՏ")
_ODD_LATIN = (
    range(0x0131, 0x0132), range(0x0237, 0x0238), range(0x0250, 0x02B0), range(0x1D00, 0x1DC0),
    range(0x2C60, 0x2C80), range(0xA720, 0xA800), range(0xAB30, 0xAB70),
)  # fmt: skip
# Signs that look like ASCII signs: hyphens, slashes, colons and others.
_ODD_SIGNS = frozenset(
    (
        0x2010, 0x2011, 0x2012, 0x2212, 0x2044, 0x2215, 0x29F8, 0x2216,
        0xA789, 0x0589, 0x05C3, 0x2236, 0x003B, 0x201A, 0x01C3
    )
)  # fmt: skip


def visible(text: str) -> str:
    """Return text that is safe for a terminal, with names in place of invisible characters."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_named(each) if _is_hidden(each) else each for each in text)


def escaped(document: str) -> str:
    """Return equivalent JSON with hidden characters escaped."""
    if document.isascii():
        return document
    return "".join(
        _escape(each) if _is_hidden(each) and each != "\n" else each for each in document
    )


def _escape(each: str) -> str:
    return json.dumps(each)[1:-1]


def revealed(text: str) -> str:
    """Return `visible` text in which look-alike characters are followed by their names."""
    if text.isascii() and text.isprintable():
        return text
    marked = _look_alikes(text)
    return "".join(
        _named(each) if _is_hidden(each) else _named(each, each) if at in marked else each
        for at, each in enumerate(text)
    )


def _is_hidden(each: str) -> bool:
    if each == " ":
        return False
    return each in _OWN or ord(each) in _BLANK or unicodedata.category(each) in _HIDDEN


def _named(each: str, shown: str = "") -> str:
    code = ord(each)
    kind = _KINDS.get(unicodedata.category(each), "CHARACTER")
    name = _CONTROLS.get(code) or unicodedata.name(each, kind)
    return f"{_OPEN}{shown and shown + ' '}U+{code:04X} {name}{_CLOSE}"


def _look_alikes(text: str) -> set[int]:
    """Return the positions of characters that look like other characters."""
    found = {at for at, each in enumerate(text) if _is_odd(each)}
    for word in _WORD.finditer(text):
        found |= {word.start() + at for at in _foreign(word[0])}
    for at, each in enumerate(text):
        if unicodedata.category(each).startswith("M") and _needs_no_mark(text[at - 1 : at]):
            found.add(at)
    return found


def _is_odd(each: str) -> bool:
    """Return whether a character has a plainer compatible form, or is an unusual letter."""
    if each.isascii():
        return False
    plain = unicodedata.normalize("NFKC", each)
    compatible = plain != each and (each.isalnum() or (plain.isascii() and len(plain) == 1))
    code = ord(each)
    return compatible or code in _ODD_SIGNS or any(code in span for span in _ODD_LATIN)


def _foreign(word: str) -> list[int]:
    """Return the positions of letters whose script differs from the word's apparent script."""
    if word.isascii():
        return []
    scripts = {at: script for at, each in enumerate(word) if (script := _script(each)) in _ALIKE}
    own = "LATIN" if "LATIN" in scripts.values() else next(iter(scripts.values()), "")
    letters = [each for each in word if each.isalpha()]
    if own != "LATIN" and letters and all(each in _DRAWN_LATIN for each in letters):
        return list(scripts)
    return [at for at, script in scripts.items() if script != own]


def _script(each: str) -> str:
    return unicodedata.name(each, "").partition(" ")[0] if each.isalpha() else ""


def _needs_no_mark(before: str) -> bool:
    """Return whether a character is usually written without a combining mark."""
    return not before.isalpha() or _script(before) in _ALIKE


def wrapped(text: str, width: int) -> list[str]:
    """Split a text into pieces of at most `width` characters; an empty text is one piece."""
    return [text[at : at + width] for at in range(0, len(text), width)] or [""]


def counted(texts: Iterable[str]) -> dict[str, int]:
    """Count hidden characters by name; line breaks and tabs are not counted."""
    hidden = (each for text in texts for each in text if each not in "\n\t" and _is_hidden(each))
    return {_named(each).strip(_OPEN + _CLOSE): times for each, times in Counter(hidden).items()}


def printable(text: str) -> str:
    """Return untrusted text for a terminal, with names for hidden characters except line breaks."""
    return "\n".join(map(visible, text.split("\n")))
