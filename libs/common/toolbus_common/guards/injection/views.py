"""Forms of a text in which patterns are searched, with the positions of the original (no I/O)."""

import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import re2
from msgspec import Struct

from toolbus_common.guards.texts.expressions import compiled

# Cyrillic and Greek letters that look like Latin letters. Replaced only in words that mix scripts.
_ALIKE = str.maketrans("авекмнорстухіјѕԁһԛԝӏαεικνορτυχγηω", "abekmhopctyxijsdhqwlaeiknoptuxynw")
_MIXED = re2.compile(r"[a-z][\p{Cyrillic}\p{Greek}]|[\p{Cyrillic}\p{Greek}][a-z]")
_SPACED = re2.compile(r"\b(?:[a-zA-Z][ .*_\-]{1,3}){6,}[a-zA-Z]\b")
_INVISIBLE = frozenset(
    [*range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0xAD, 0x34F, 0x61C,
     0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180C, 0x180D, 0x180E, 0x3164, 0xFEFF, 0xFFA0,
     *range(0xFE00, 0xFE10), *range(0xE0000, 0xE01F0)]
)  # fmt: skip
# In text with one byte for each character. Only the codes are removed: a string within a sequence,
# such as the title of a window, is read by models. Codes that move the cursor separate words.
_TERMINAL = compiled(
    r"(?P<moves>(?:\x1b\[|\x9b)[0-9;?]{0,64}[A-HJKSTdf])"
    r"|(?:\x1b\[|\x9b)[0-9:;<=>?]{0,64}[ -/]{0,8}[@-~]|\x1b\][0-9]{0,4};?|\x1b[ -/]{0,4}[0-~]"
    r"|[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]"
)
_UNFINISHED = compiled(r"(?:\x1b[\[\]]?|\x9b)[0-9:;<=>?]{0,64}")
_ANY_INVISIBLE = re2.compile(
    r"[\x{ad}\x{34f}\x{61c}\x{115f}\x{1160}\x{17b4}\x{17b5}\x{180b}-\x{180e}\x{200b}-\x{200f}"
    r"\x{202a}-\x{202e}\x{2060}-\x{206f}\x{3164}\x{fe00}-\x{fe0f}\x{feff}\x{ffa0}"
    r"\x{e0000}-\x{e01ef}]"
)


class View(Struct, frozen=True):
    """A form of a text. `positions` are those of its characters in the original; empty if equal.

    `width` is the number of characters of the original that one character stands for.
    """

    text: str
    positions: Sequence[int] = ()
    width: int = 1

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Return the place in the original of a place in this form."""
        if not self.positions:
            return start, end
        return self.positions[start], self.positions[end - 1] + self.width


def has_invisible(text: str) -> bool:
    """Return whether a text contains characters that are not shown."""
    return not text.isascii() and _ANY_INVISIBLE.search(encoded(text)) is not None


def encoded(text: str) -> bytes:
    """Return a text in UTF-8; a surrogate is replaced by one character."""
    return text.encode("utf-8", "replace")


def plain_view(text: str) -> View:
    """Return a text in small letters, without hidden characters and letters of other widths."""
    if text.isascii():
        return View(text.lower())
    if has_invisible(text):
        return _visible_view(text, ())
    return View(folded(text))


def views_without_codes(text: str) -> list[View]:
    """Return the forms of a text without the codes of terminals, if it has any.

    One of them retains the last letter of each code. After an unfinished code, a terminal reads the
    next letter as the end of the code, but a model reads it as text.
    """
    data = text.encode("latin-1", "replace")
    found = ([*each.finditer(data)] for each in (_TERMINAL, _UNFINISHED))
    return [_visible_view(text, codes) for codes in found if codes]


def _visible_view(text: str, codes: Sequence[Any]) -> View:
    """Return a text without invisible characters and without codes of terminals."""
    places: list[int] = []
    spaces: set[int] = set()
    last = 0
    for code in codes:
        start, end = code.span()
        places.extend(range(last, start))
        if code.lastgroup:
            places.append(start)
            spaces.add(start)
        last = end
    places.extend(range(last, len(text)))
    kept = [place for place in places if ord(text[place]) not in _INVISIBLE]
    shown = [" " if place in spaces else text[place] for place in kept]
    return View(folded("".join(shown)), kept)


def further_views(view: View) -> list[View]:
    """Return the forms of a text without its disguises: mixed scripts, and spaced letters."""
    found = []
    if not view.text.isascii() and _MIXED.search(encoded(view.text)):
        latin = unicodedata.normalize("NFC", view.text)
        if len(latin) == len(view.text):
            found.append(View(latin.translate(_ALIKE), view.positions, view.width))
    return found + _spaced_words(view)


def folded(text: str) -> str:
    """Return a text in lower case with the same number of characters."""
    small = text.translate(_widths()).lower()
    return small if len(small) == len(text) else "".join(map(_small, text))


def _small(char: str) -> str:
    small = char.lower()
    return small if len(small) == 1 else char


def _spaced_words(view: View) -> list[View]:
    """Return each run of single letters (`i g n o r e`) as words."""
    data = encoded(view.text)
    if not view.text.isascii():
        data = view.text.encode("ascii", "replace")  # one byte for a character
    found = []
    for match in _SPACED.finditer(data):
        start, end = match.span()
        places = [place for place in range(start, end) if view.text[place].isalpha()]
        letters = "".join([view.text[place] for place in places])
        if view.positions:
            places = [view.positions[place] for place in places]
        found.append(View(letters, places))
    return found


@lru_cache(maxsize=1)
def _widths() -> dict[int, str]:
    """Return the characters that are another form of one ASCII character."""
    ranges = (range(0x2010, 0x2040), range(0xFF01, 0xFF5F), range(0x1D400, 0x1D800),
              range(0x2460, 0x24FF), range(0x1F130, 0x1F18A), range(0x2100, 0x2150))  # fmt: skip
    table = {
        code: plain
        for each in ranges
        for code in each
        if len(plain := unicodedata.normalize("NFKC", chr(code))) == 1 and plain.isascii()
    }
    quotes = dict.fromkeys((0x2018, 0x2019, 0x201A, 0x201B, 0xB4), "'") | dict.fromkeys(
        (0x201C, 0x201D, 0x201E, 0x201F, 0xAB, 0xBB), '"'
    )
    return table | quotes | {0xA0: " ", 0x3000: " ", 0x202F: " "}
