"""Personal data in texts: what is found, what is not, and how certain it is."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolbus_common.guards.personal_data import detector as detector_module
from toolbus_common.guards.personal_data.detector import PersonalDataDetector, known_rules
from toolbus_common.guards.personal_data.rules import RULES
from toolbus_common.guards.texts.joined_texts import JoinedTexts

# The numbers are those of the examples in public documents and of python-stdnum.
EXAMPLES = (
    ("email", "john.doe@example.com", "write to {} today"),
    ("email", "user%40example.com", "?mail={}&x=1"),
    ("credit-card", "4111 1111 1111 1111", "paid with {}."),
    ("credit-card", "5555555555554444", "{}"),
    ("credit-card", "378282246310005", "amex {}"),
    ("credit-card", "4111-1111-1111-1111", "tel {}"),
    ("iban", "DE89 3704 0044 0532 0130 00", "to {} please"),
    ("iban", "GB29NWBK60161331926819", "{}"),
    ("phone", "+14155552671", "{}"),
    ("phone", "+49 30 901820", "dial {} now"),
    ("phone", "(415) 555-2671", "{}"),
    ("phone", "030 901820", "Telefon: {}"),
    ("us-ssn", "536-90-4399", "{}"),
    ("us-ssn", "536904399", "userSsn={}"),
    ("us-itin", "912-90-3456", "{}"),
    ("uk-nhs", "943 476 5919", "NHS number {}"),
    ("uk-nino", "AB123456C", "{}"),
    ("de-tax-id", "36 574 261 809", "Steuer-ID: {}"),
    ("fr-nir", "2 95 10 99 126 111 93", "{}"),
    ("es-dni", "54362315K", "{}"),
    ("es-nie", "X-2482300-W", "{}"),
    ("it-fiscal-code", "RCCMNL83S18D969H", "{}"),
    ("nl-bsn", "111222333", "BSN {}"),
    ("be-national-number", "85.07.30-033.28", "{}"),
    ("pl-pesel", "44051401359", "PESEL: {}"),
    ("se-personal-number", "880320-0016", "{}"),
    ("no-birth-number", "15108695088", "fødselsnummer {}"),
    ("fi-personal-code", "131052-308T", "{}"),
    ("br-cpf", "390.533.447-05", "{}"),
    ("br-cnpj", "16.727.230/0001-97", "{}"),
    ("in-aadhaar", "2341 2341 2346", "Aadhaar no. {}"),
    ("in-pan", "ACUPA7085R", "{}"),
    ("ca-sin", "123 456 782", "SIN {}"),
    ("au-tfn", "123 456 782", "tax file number {}"),
    ("au-medicare", "2123456701", "medicare {}"),
    ("passport", "C01X00T47", "passport: {}"),
    ("driving-license", "D1234567", "driver's license {}"),
    ("date-of-birth", "1985-03-12", "date of birth: {}"),
    ("date-of-birth", "March 12, 1985", "born on {}"),
    ("bitcoin-address", "1NEDqZPvTWRaoho48qXuLLsrYomMXPABfD", "{}"),
    ("ethereum-address", "0x52908400098527886E0F7030069857D2E4169EE7", "wallet {}"),
)
HARMLESS = (
    "2026-11-02T10:11:12.123456Z", "1764523872123", "9f8a7b6c5d4e3f2a1b0c9d8e7f6a5b4c",
    "4111111111111112", "1.4111111111111111", "550e8400-e29b-41d4-a716-446655440000",
    "git@github.com:org/repo.git", "logo@2x.png", "pkg@1.2.3", "ISBN 978-3-16-148410-0",
    "2024-2025-1234", "since 123456782", "1,234,567,890", "3.141592653589793238", "DE12345",
    "http://host/415-555-2671/x", "build 20261102101112", "123-456-7890123", "666-12-3456",
    "0000 0000 0000 0000", "DE89 3704 0044 0532 0130 01", "390.533.447-06", "131052-308U",
    "2026-11-02", "1.2.3.4", "00:11:22:33:44:55", "123456789",
)  # fmt: skip


def _found(*texts: str, **options: Any) -> list[tuple[str, str]]:
    return [
        (each.rule, texts[each.text][each.start : each.end])
        for each in PersonalDataDetector(**options).find(texts)
    ]


@pytest.mark.parametrize(("rule", "value", "around"), EXAMPLES)
def test_a_valid_value_is_found(rule: str, value: str, around: str) -> None:
    assert _found(around.format(value)) == [(rule, value)]


def test_every_rule_has_an_example() -> None:
    by_default = {rule.id for rule in RULES if rule.default}
    assert by_default == {rule for rule, _, _ in EXAMPLES}


@pytest.mark.parametrize("text", HARMLESS)
def test_what_only_looks_similar_is_not_found(text: str) -> None:
    assert _found(text) == []


def test_a_member_s_name_shows_what_its_value_is() -> None:
    assert _found("customer_ssn", "536904399", "dob", "1985-01-01") == [
        ("us-ssn", "536904399"), ("date-of-birth", "1985-01-01"),
    ]  # fmt: skip


def test_a_word_near_a_value_makes_it_more_certain() -> None:
    (alone,) = PersonalDataDetector().find(["536-90-4399"])
    (near,) = PersonalDataDetector().find(["social security number: 536-90-4399"])
    assert alone.score < near.score == 1


@pytest.mark.parametrize("before", ["0.2578877655032556", "v1.12345678901234", "a/98765432101234"])
@pytest.mark.parametrize("between", [" ", ", ", "\n", "; "])
def test_decimals_before_a_value_do_not_hide_it(before: str, between: str) -> None:
    text = f"{before}{between}4111 1111 1111 1111"
    found = [text[each.start : each.end] for each in PersonalDataDetector().find([text])]
    assert found == ["4111 1111 1111 1111"]


def test_addresses_of_networks_are_found_only_if_the_rules_are_named() -> None:
    text = "from 203.0.113.9 by 00:11:22:33:44:55 at 2606:2800:220:1:248:1893:25c8:1946"
    assert _found(text) == []
    assert [rule for rule, _ in _found(text, rules=("ip-address", "mac-address"))] == [
        "ip-address", "mac-address", "ip-address",
    ]  # fmt: skip


def test_excluded_rules_do_not_apply() -> None:
    assert _found("a@example.com +14155552671", except_rules=("email",)) == [
        ("phone", "+14155552671")
    ]


def test_positions_count_characters_of_the_text_whatever_its_script() -> None:
    assert _found("é", "почта 🔑 john@example.com 鍵") == [("email", "john@example.com")]


_PLANTED = ("john.doe@example.com", "DE89370400440532013000")
_MARKS = st.sampled_from([" ", "\n", '"', ", ", "; ", "(", " 鍵 "])


@settings(deadline=None, max_examples=200)
@given(
    st.text(max_size=200), _MARKS, st.sampled_from(_PLANTED),
    _MARKS, st.text(max_size=200),
)  # fmt: skip
def test_a_planted_value_is_found_in_any_text(
    before: str, left: str, value: str, right: str, after: str
) -> None:
    text = f"{before}{left}{value}{right}{after}"
    start = text.index(value)
    assert any(
        each.start <= start and start + len(value) <= each.end
        for each in PersonalDataDetector().find([text])
    )


@settings(deadline=None, max_examples=150)
@given(
    st.lists(
        st.text(
            alphabet=st.one_of(st.sampled_from("0123456789 -.@+()/aA"), st.characters()),
            max_size=200,
        ),
        max_size=6,
    )
)
def test_findings_are_sorted_within_the_texts_and_do_not_overlap(texts: list[str]) -> None:
    last = (-1, 0)
    for each in PersonalDataDetector(rules=tuple(known_rules())).find(texts):
        assert (each.text, each.start) >= last
        assert each.start < each.end <= len(texts[each.text])
        last = (each.text, each.end)


class _Counting:
    """An expression that counts the characters that it may read."""

    def __init__(self, expression: Any, read: list[int]) -> None:
        self._expression, self._read = expression, read

    def finditer(self, data: bytes, start: int, end: int) -> Any:
        self._read.append(min(end, len(data)) - start)
        return self._expression.finditer(data, start, end)


HOSTILE = (
    "4111 1111 1111 1111 ", "0123456789", "1 ", "1-", "a@b.co ", "a@", "a.", "ssn 123-45-6789 ",
    "phone tel mobile fax ssn bsn ", "DE89370400440532013000 ", "+1415555 ", "1985-03-12 dob ",
    "bc1qqqqqqqqqqqqqqqqq", "0x", "(415) 555-",
)  # fmt: skip


@pytest.mark.parametrize("pattern", HOSTILE)
def test_single_rules_read_a_bounded_multiple_of_a_hostile_text(pattern: str) -> None:
    whole = detector_module._Compiled(RULES)
    read: list[int] = []
    whole._rules = [(rule, _Counting(each, read), words) for rule, each, words in whole._rules]
    text = (pattern * (1 + 50_000 // len(pattern)))[:50_000].encode()
    for _ in whole.matches(text[: len(text) // 2], JoinedTexts([text.decode()]).limit()):
        pass
    half = sum(read)
    read.clear()
    for _ in whole.matches(text, JoinedTexts([text.decode()]).limit()):
        pass
    assert sum(read) <= len(text) * len(RULES)
    assert sum(read) <= 2.5 * half + 10_000
