"""Token counts: exact or marked as estimated, each definition counted once."""

from hashlib import sha256

import pytest
from tiktoken_ext import openai_public

from toolbus_codemode.catalog.namespace import ToolNamespace
from toolbus_codemode.tokens.definition_cost import DefinitionCounter
from toolbus_codemode.tokens.tokenizer import PATTERN, Tokens, vocabulary
from toolbus_common.access.principal import EffectiveGrants

EVERYTHING = EffectiveGrants((("*",),))


class CountingTokens(Tokens):
    """A token counter that keeps the counted texts."""

    def __init__(self) -> None:
        super().__init__()
        self.counted: list[str] = []

    def of(self, text: str) -> int:
        self.counted.append(text)
        return super().of(text)


def namespace(bounds: EffectiveGrants = EVERYTHING) -> ToolNamespace:
    described = {"description": "Prints its argument.", "inputSchema": {"type": "object"}}
    return ToolNamespace(
        {"one": {"say": described, "hear": described}, "two": {"say": described}}, bounds
    )


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("hello world", 2), ("<|endoftext|>", 7), ("half a pair: \ud800", 5)],
)
def test_a_text_has_the_tokens_of_the_vocabulary(text: str, tokens: int) -> None:
    counted = Tokens()
    assert counted.of(text) == tokens
    assert counted.counted_by == "o200k_base"


def test_without_the_package_counts_are_marked_as_estimated() -> None:
    counted = Tokens("a_package_nobody_has")
    assert counted.counted_by == "bytes/4"
    assert (counted.of(""), counted.of("12345"), counted.of("é" * 4)) == (0, 2, 2)


def test_only_definitions_within_the_callers_grants_count() -> None:
    measure = DefinitionCounter(Tokens())
    narrow = measure.tools(namespace(EffectiveGrants((("two__*",),))))
    assert set(narrow) == {"two"}
    assert narrow["two"] == measure.tools(namespace())["two"]


def test_a_definition_is_counted_once_for_all_callers() -> None:
    tokens = CountingTokens()
    measure = DefinitionCounter(tokens)
    for _ in range(3):
        measure.tools(namespace())
        measure.tools(namespace(EffectiveGrants((("one__*",),))))
    assert len(tokens.counted) == len(set(tokens.counted)) == 3


def test_the_smallest_servers_are_counted_together() -> None:
    measure, seen = DefinitionCounter(Tokens()), namespace()
    whole = measure.servers(seen, 2, "(others)")
    assert set(whole) == {"one", "two"}
    cut = measure.servers(seen, 1, "(others)")
    assert cut == {"one": whole["one"], "(others)": whole["two"]}


def test_the_vocabulary_and_its_words_are_those_of_tiktoken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    digests: list[str] = []

    def load(_url: str, expected_hash: str) -> dict[bytes, int]:
        digests.append(expected_hash)
        return {}

    monkeypatch.setattr(openai_public, "load_tiktoken_bpe", load)  # it downloads
    assert openai_public.o200k_base()["pat_str"] == PATTERN
    assert digests == [sha256(vocabulary()).hexdigest()]


@pytest.mark.parametrize("character", [" ", "\n", "a", "!", "漢", "1"])
def test_a_long_run_of_one_character_is_counted(character: str) -> None:
    counted = Tokens()
    assert counted.of(character * 1_000_000) == 10 * counted.of(character * 100_000)
