"""Texts that arrive in pieces: every match is found, wherever the borders are."""

import random
import re

import pytest

from toolbus_executor.guards.streams.held_text import HOLD, LONGEST_WORD, HeldText, Match

# A word of any length, a value after a name, and a block of many lines.
RULES = re.compile(
    r"sk-[a-z0-9]{20,}|(?<=password is )correct [a-z]+|-----BEGIN KEY-----[\s\S]*?-----END KEY-----"
)
SECRETS = (
    "sk-" + "a1b2c3d4e5" * 3,
    "sk-" + "x9" * 1500,
    "password is correct horse",
    "-----BEGIN KEY-----\n" + "MIIEowIBAAKCAQEA\n" * 60 + "-----END KEY-----",
)
WORDS = ("the", "quick", "sk-", "password", "-----BEGIN", "is", "naïve", "日本", "\n", "key=")


def find(text: str) -> list[Match]:
    """Return the matches of the rules."""
    return [Match(*each.span(), f"<{len(each[0])}>") for each in RULES.finditer(text)]


def redacted(text: str) -> str:
    """Return a whole text with its matches replaced."""
    return RULES.sub(lambda each: f"<{len(each[0])}>", text)


def in_pieces(text: str, chance: random.Random, longest: int) -> list[str]:
    """Return a text in pieces of random length."""
    pieces = []
    while text:
        size = chance.randint(1, longest)
        pieces.append(text[:size])
        text = text[size:]
    return pieces


@pytest.mark.parametrize("seed", range(200))
def test_the_pieces_together_are_the_redaction_of_the_whole(seed: int) -> None:
    chance = random.Random(seed)
    words = [
        chance.choice(SECRETS) if chance.random() < 0.03 else chance.choice(WORDS)
        for _ in range(chance.randint(1, 400))
    ]
    text = " ".join(words)
    whole = redacted(text)
    held, parts = HeldText(find), list[str]()
    for piece in in_pieces(text, chance, chance.choice((1, 3, 20, 700))):
        parts.append(held.feed(piece))
    parts.append(held.end())
    shown = ""
    for part in parts:
        shown += part
        assert whole.startswith(shown)
    assert shown == whole


def test_text_without_a_match_is_returned_before_the_end() -> None:
    held = HeldText(find)
    shown = "".join(held.feed("word ") for _ in range(1000))
    assert len(shown) >= 5000 - 2 * HOLD
    assert shown + held.end() == "word " * 1000


def test_a_long_word_is_not_held_back_without_a_limit() -> None:
    held = HeldText(find)
    shown = "".join(held.feed("y" * 100) for _ in range(1000))
    assert len(shown) > 100_000 - 2 * LONGEST_WORD


def test_a_value_is_replaced_where_no_rule_matches_it_after_the_match() -> None:
    held = HeldText(lambda text: [Match(0, 10, "<v>")] if text.startswith("secret-one") else [])
    shown = held.feed("secret-one and then ") + held.feed("again secret-one ") + held.end()
    assert shown == "<v> and then again <v> "


def test_an_error_of_the_search_is_raised_before_the_text_is_returned() -> None:
    def reject(text: str) -> list[Match]:
        if "sk-" in text:
            raise ValueError("rejected")
        return []

    held = HeldText(reject)
    shown = held.feed("harmless " * 50)
    with pytest.raises(ValueError, match="rejected"):
        held.feed("sk-" + "a" * 300)
    assert "sk-" not in shown


def test_the_work_for_a_long_word_or_block_is_linear() -> None:
    for begin in ("", "-----BEGIN KEY-----\n"):
        searched: list[int] = []
        held = HeldText(lambda text, sizes=searched: sizes.append(len(text)) or [])  # type: ignore[misc]
        held.feed(begin)
        for _ in range(1000):
            held.feed("y" * 60)
        held.end()
        assert sum(searched) < 60_000 * 32
