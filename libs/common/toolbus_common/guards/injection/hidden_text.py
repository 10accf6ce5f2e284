"""Characters that a reader does not see: which rules they match, and the text that they hide."""

from collections.abc import Iterator

import re2
from msgspec import Struct

from toolbus_common.guards.injection.views import View, encoded, has_invisible

# In text with one code for each character, so that positions are those of the text.
_RUNS = re2.compile(
    r"(?P<tags>[\x{e0001}\x{e0020}-\x{e007f}]{2,})"
    r"|(?P<selectors>[\x{fe00}-\x{fe0f}\x{e0100}-\x{e01ef}]{3,})"
    r"|(?P<zero_width>[\x{200b}-\x{200f}\x{2060}-\x{2064}\x{feff}\x{180e}\x{ad}\x{34f}]{4,})"
    r"|(?P<fillers>[\x{3164}\x{ffa0}\x{115f}\x{1160}]{3,})"
    r"|(?P<bidi>[\x{202d}\x{202e}])"
)
_SPLIT_WORDS = re2.compile(r"[a-zA-Z][\x{200b}-\x{200d}\x{2060}-\x{2064}\x{feff}\x{ad}]+[a-zA-Z]")
_ESCAPES = re2.compile(
    r"(?P<escape>\x1b(?:\][^\x07\x1b]{0,500}(?:\x07|\x1b\\)|\[[0-9;?]{0,30}[A-Za-ln-z]"
    r"|\[(?:[0-9]{1,3};)*8(?:;[0-9]{1,3})*m|[PX^_c78DEHM])|[\x{80}-\x{84}\x{86}-\x{9f}])"
    r"|(?P<control>[\x00-\x06\x0e-\x1a]{1,}|[^\n\x00-\x1f]\x08+|\x7f)"
)
_ANY_CONTROL = re2.compile(r"[\x00-\x06\x08\x0e-\x1b\x7f\x{80}-\x{84}\x{86}-\x{9f}]")
_FLAG = "\U0001f3f4"
_LONGEST_FLAG = 7
_TAGS = 0xE0000
_FEWEST_BITS = 32

RULES = {
    "hidden-tags": "Tag characters, which are not shown, spell a text.",
    "hidden-selectors": "A run of variation selectors carries data.",
    "hidden-zero-width": "A run of zero-width characters carries data.",
    "hidden-fillers": "A run of fillers that are shown as nothing.",
    "split-words": "Zero-width characters split words.",
    "bidi-override": "Direction overrides show a text in another order.",
    "terminal-escape": "Escape sequences change what a terminal shows.",
    "control-characters": "Control characters change what a terminal shows.",
}
_SCORES = {
    "hidden-tags": (0.9, 0.95),
    "hidden-selectors": (0.85, 0.95),
    "hidden-zero-width": (0.7, 0.9),
    "hidden-fillers": (0.5, 0.8),
    "split-words": (0.3, 0.5),
    "bidi-override": (0.6, 0.9),
    "terminal-escape": (0.6, 0.9),
    "control-characters": (0.2, 0.6),
}


class Hidden(Struct, frozen=True):
    """A run of hidden characters: its rule, place and scores, and the text in it, if any."""

    rule: str
    start: int
    end: int
    score: float
    definition: float
    text: View | None = None


def hidden_runs(text: str) -> Iterator[Hidden]:
    """Return the runs of hidden characters that the language of the text does not need."""
    if has_invisible(text):
        yield from _invisible(text)
    data = encoded(text)
    if _ANY_CONTROL.search(data) is not None:
        for name, start, end in _places(_ESCAPES, data):
            yield _found(
                "terminal-escape" if name == "escape" else "control-characters", start, end
            )


def _invisible(text: str) -> Iterator[Hidden]:
    data = encoded(text)
    for name, start, end in _places(_RUNS, data):
        if name == "tags":
            if start and text[start - 1] == _FLAG and end - start <= _LONGEST_FLAG:
                continue  # the flag of a region
            yield _found("hidden-tags", start, end, _tag_text(text, start, end))
        elif name == "selectors":
            yield _found("hidden-selectors", start, end, _selector_text(text, start, end))
        elif name == "zero_width":
            yield _found("hidden-zero-width", start, end, _bit_text(text, start, end))
        elif name == "fillers":
            yield _found("hidden-fillers", start, end)
        else:
            yield _found("bidi-override", start, end)
    for _, start, end in _places(_SPLIT_WORDS, data):
        yield _found("split-words", start + 1, end - 1)


def _found(rule: str, start: int, end: int, text: View | None = None) -> Hidden:
    score, definition = _SCORES[rule]
    return Hidden(rule, start, end, score, definition, text)


def _places(pattern: object, data: bytes) -> Iterator[tuple[str, int, int]]:
    """Return the name of the group, and the place in characters, of each match."""
    at_byte = at_char = 0
    for match in pattern.finditer(data):  # type: ignore[attr-defined]
        first, last = match.span()
        start = at_char + len(data[at_byte:first].decode("utf-8", "replace"))
        end = start + len(data[first:last].decode("utf-8", "replace"))
        at_byte, at_char = last, end
        yield str(match.lastgroup or ""), start, end


def _tag_text(text: str, start: int, end: int) -> View:
    plain = "".join(chr(max(0x20, ord(char) - _TAGS)) for char in text[start:end])
    return View(plain.lower(), range(start, end))


def _selector_text(text: str, start: int, end: int) -> View:
    """Return the bytes that variation selectors 1 to 256 stand for, as text."""
    values = (
        code - 0xFE00 if code < _TAGS else code - 0xE0100 + 16 for code in map(ord, text[start:end])
    )
    return View(bytes(values).decode("latin-1").lower(), range(start, end))


def _bit_text(text: str, start: int, end: int) -> View | None:
    """Return the text of a run of two different characters, which stand for bits."""
    run = text[start:end]
    kinds = sorted(set(run))
    if len(kinds) not in (2, 3) or len(run) < _FEWEST_BITS:
        return None
    zero, one = kinds[0], kinds[1]
    bits = "".join("1" if char == one else "0" for char in run if char in (zero, one))
    for size in (8, 7):
        for flipped in (False, True):
            source = bits.translate(str.maketrans("01", "10")) if flipped else bits
            chars = [
                chr(int(source[place : place + size], 2))
                for place in range(0, len(source) - size + 1, size)
            ]
            plain = "".join(chars)
            if plain.isascii() and sum(map(str.isprintable, plain)) > 0.9 * len(plain):
                # A position in the hidden text stands for the whole run of characters.
                return View(plain.lower(), [start] * len(plain), end - start)
    return None
