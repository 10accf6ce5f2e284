"""Replacement of findings in JSON: exact, valid, and nothing of the value remains."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from toolbus_common.guards.redaction import redact, without_placeholders
from toolbus_common.guards.texts.findings import Finding
from toolbus_common.guards.texts.json_texts import CollisionError, JsonTexts

SECRETS = [
    'qu"ote\\back',
    "na\u00efve\u2028line",
    "\U0001f511\U0001f511key",
    "tab\tnull\x00nl\n",
    "4111111111111111",
]
TEXTS = some.text(some.characters(codec="utf-8"), max_size=12)


@some.composite
def documents(draw: Any) -> tuple[Any, str]:
    """Return a JSON value with a secret in some of its strings and names, and the secret."""
    secret = draw(some.sampled_from(SECRETS))
    texts = some.one_of(
        TEXTS,
        some.builds(lambda a, b, n: f"{a}{(secret + b) * n}", TEXTS, TEXTS, some.integers(1, 3)),
    )
    leaves = some.one_of(
        texts, some.none(), some.booleans(), some.integers(-(2**63), 2**63),
        some.floats(allow_nan=False, allow_infinity=False),
    )  # fmt: skip
    value = draw(
        some.recursive(
            leaves,
            lambda inner: some.one_of(
                some.lists(inner, max_size=4), some.dictionaries(texts, inner, max_size=4)
            ),
            max_leaves=20,
        )
    )
    return value, secret


def found_in(document: JsonTexts, secret: str) -> list[Finding]:
    findings = []
    for index, text in enumerate(document.texts):
        at = text.find(secret)
        while at >= 0:
            findings.append(Finding("rule", index, at, at + len(secret)))
            at = text.find(secret, at + len(secret))
    return findings


def expected(value: Any, secret: str) -> Any:
    """Return the value with the secret replaced in all texts, by plain Python."""
    if isinstance(value, str):
        return value.replace(secret, "[gone]")
    if isinstance(value, list):
        return [expected(each, secret) for each in value]
    if isinstance(value, dict):
        return {expected(name, secret): expected(each, secret) for name, each in value.items()}
    if isinstance(value, int | float) and not isinstance(value, bool) and secret in str(value):
        return str(value).replace(secret, "[gone]")
    return value


@given(documents(), some.booleans())
def test_a_redaction_changes_the_value_everywhere_and_nothing_else(
    drawn: tuple[Any, str],
    ascii_only: bool,  # noqa: FBT001
) -> None:
    value, secret = drawn
    document = JsonTexts(json.dumps(value, ensure_ascii=ascii_only).encode())
    redacted = redact(document, found_in(document, secret), lambda *_: "[gone]")
    assert redacted.value == expected(value, secret)
    body = msgspec.json.encode(redacted.value)
    assert json.loads(body) == expected(value, secret)
    assert json.dumps(secret)[1:-1] not in body.decode() or secret in "[gone]"
    assert redacted.values in ({}, {"[gone]": secret})


def test_a_value_is_replaced_where_no_rule_matched_it() -> None:
    document = JsonTexts(b'{"a":"key=abcdef123","b":["abcdef123 abcdef123"],"abcdef123":1}')
    at = document.texts.index("key=abcdef123")
    redacted = redact(document, [Finding("rule", at, 4, 13)], lambda rule, _: f"<{rule}>")
    assert redacted.value == {"a": "key=<rule>", "b": ["<rule> <rule>"], "<rule>": 1}


def test_a_short_value_is_replaced_only_where_a_rule_matched_it() -> None:
    document = JsonTexts(b'["pin 1234","1234"]')
    assert redact(document, [Finding("r", 0, 4, 8)], lambda *_: "*").value == ["pin *", "1234"]


def test_overlapping_findings_are_replaced_together() -> None:
    document = JsonTexts(b'["abcdefghij"]')
    findings = [Finding("two", 0, 4, 8), Finding("one", 0, 2, 6), Finding("three", 0, 8, 9)]
    seen: list[tuple[str, str]] = []

    def placeholder(rule: str, value: str) -> str:
        seen.append((rule, value))
        return "*"

    assert redact(document, findings, placeholder).value == ["ab**j"]
    assert seen == [("one", "cdefgh"), ("three", "i")]


def test_a_number_with_a_finding_becomes_text() -> None:
    document = JsonTexts(b'{"card":4111111111111111,"n":1}')
    at = document.texts.index("4111111111111111")
    assert redact(document, [Finding("card", at, 0, 16)], lambda *_: "*").value == {
        "card": "*",
        "n": 1,
    }


def test_two_members_never_become_one() -> None:
    document = JsonTexts(b'{"*":1,"secret":2}')
    with pytest.raises(CollisionError):
        redact(document, [Finding("r", 2, 0, 6)], lambda *_: "*")


class CountedText(str):  # noqa: SLOT000 - it counts
    """A text that counts how often it is searched as a whole."""

    searches = 0

    def __contains__(self, part: object) -> bool:
        self.searches += 1
        return super().__contains__(str(part))


def test_a_text_is_searched_for_placeholders_once_however_many_findings_it_has() -> None:
    text = CountedText("a@b.co " * 100)
    findings = [Finding("email", 0, at, at + 6) for at in range(0, 700, 7)]
    assert without_placeholders([text], findings) == findings
    assert text.searches == 1


def test_a_finding_inside_one_of_many_placeholders_is_left_out() -> None:
    placeholder = "[redacted:email:0123456789abcdef]"
    text = f"{placeholder} x " * 50
    step = len(placeholder) + 3
    inside = [Finding("hex", 0, at + 16, at + 32) for at in range(0, len(text), step)]
    outside = [Finding("x", 0, at + step - 2, at + step - 1) for at in range(0, len(text), step)]
    assert without_placeholders([text], [*inside, *outside]) == outside
