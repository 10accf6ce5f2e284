"""Secrets in texts: what is found, where, and at what cost."""

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolbus_common.guards.secrets import detector as detector_module
from toolbus_common.guards.secrets.detector import SecretsDetector, known_rules
from toolbus_common.guards.secrets.rules import all_rules
from toolbus_common.guards.texts.joined_texts import JoinedTexts

# Spelled in two parts, so that scanners do not report this file.
GITHUB = "ghp" + "_0123456789abcdefghijABCDEFGHIJ012345"
AWS = "AKIA" + "QYLPMN5HHHFPZAM2"
HEX = "a8f5f167f44f4964" + "e6c998dee827110c"
STRIPE = "sk_live" + "_4eC39HqLyjWDarjtT1zdp7dc"
TOOLBUS = "tbk" + "_Zm9vYmFyYmF6cXV4MDEyMzQ1Njc4OQ"
PLANTED = (GITHUB, AWS, STRIPE, TOOLBUS)


def _found(*texts: str, **options: Any) -> list[tuple[str, str]]:
    return [
        (each.rule, texts[each.text][each.start : each.end])
        for each in SecretsDetector(**options).find(texts)
    ]


@pytest.mark.parametrize(
    "around", ["{}", "x {} y", '"{}"', "({})", "see {}.", "a={}&b=1", "<k>{}</k>"]
)
@pytest.mark.parametrize("secret", PLANTED)
def test_a_secret_with_its_own_form_is_found_in_every_surrounding(secret: str, around: str) -> None:
    assert secret in [value for _, value in _found(around.format(secret))]


def test_a_member_s_name_shows_that_its_value_is_a_secret() -> None:
    assert _found("name", "build", "api_key", HEX) == [("generic-api-key", HEX)]


def test_the_same_value_under_another_name_is_no_secret() -> None:
    assert _found("name", "build", "sha", HEX) == []


def test_a_secret_in_json_in_a_string_is_found() -> None:
    once = json.dumps({"api_key": HEX})
    assert _found(once) == _found(json.dumps(once)) == [("generic-api-key", HEX)]
    assert _found(json.dumps(json.dumps(once))) == [("generic-api-key", HEX)]


def test_a_secret_in_an_encoded_url_is_found() -> None:
    url = quote(f"https://example.com/?api_key={HEX}&page=2", safe="")
    assert _found(f"next: {url}") == [("generic-api-key", HEX)]


def test_positions_count_characters_of_the_text_whatever_its_script() -> None:
    assert _found("ключ 鍵 🔑", f"🔑 ключ: {GITHUB} 鍵") == [("github-pat", GITHUB)]


_BODY = "MIIEowIBAAKCAQEAvmF1c3RpbmUgd2FzIGhlcmUgYW5kIGxlZnQgYSBrZXk=\n"


@pytest.mark.parametrize("kind", ["RSA ", "EC ", "OPENSSH ", "", "ENCRYPTED "])
def test_a_private_key_is_found_from_its_first_line_to_its_last(kind: str) -> None:
    key = f"-----BEGIN {kind}PRIVATE KEY-----\n{_BODY * 5}-----END {kind}PRIVATE KEY-----"
    assert _found(f"before\n{key}\nafter") == [("private-key", key)]
    inside = json.dumps(key)[1:-1]
    assert _found(f"before {inside} after") == [("private-key", inside)]


def test_a_private_key_without_an_end_is_found_to_the_end_of_its_body() -> None:
    key = f"-----BEGIN RSA PRIVATE KEY-----\n{_BODY * 3}"
    assert _found(f"{key}[truncated]") == [("private-key", key)]


def test_a_private_key_over_several_texts_is_found_in_each_of_them() -> None:
    lines = [
        "-----BEGIN RSA PRIVATE KEY-----",
        *[_BODY.strip()] * 4,
        "-----END RSA PRIVATE KEY-----",
    ]
    assert [value for _, value in _found(*lines)] == lines


def test_a_password_in_a_url_is_found() -> None:
    assert _found("postgres://app:hunter2x@db/main") == [("toolbus-url-credentials", "hunter2x")]


@pytest.mark.parametrize("value", ["P@ssw0rd!2024", "S3cure!Pass", "x9#kLm$2pQ"])
def test_a_password_is_found_by_the_name_of_its_member(value: str) -> None:
    assert value in [each for _, each in _found("user", "ada", "db_password", value)]
    assert value in [each for _, each in _found(json.dumps({"password": value, "user": "ada"}))]


@pytest.mark.parametrize(
    "value", ["required", "get_password()", "settings.password2", "/run/pw", "string"]
)
def test_what_only_describes_a_password_is_not_found(value: str) -> None:
    assert _found("password", value) == _found(f"password = {value}") == []


def test_only_the_named_rules_apply() -> None:
    assert _found(f"{GITHUB} {AWS}", rules=("github-pat",)) == [("github-pat", GITHUB)]


def test_excluded_rules_do_not_apply() -> None:
    assert _found(f"{GITHUB} {AWS}", except_rules=("github-pat",)) == [("aws-access-token", AWS)]


def test_nothing_is_found_without_rules() -> None:
    assert _found(f"{GITHUB} {AWS}", rules=()) == []


def test_a_placeholder_is_no_secret() -> None:
    for rule in known_rules():
        assert _found("api_key", f"[redacted:{rule}:0123456789abcdef]") == []


def test_every_rule_is_known_by_its_name_and_the_version_names_the_source() -> None:
    assert {"github-pat", "private-key", "toolbus-key", "generic-api-key"} <= known_rules()
    assert SecretsDetector().version.startswith("gitleaks-v8.")


@settings(deadline=None, max_examples=150)
@given(st.lists(st.text(max_size=200), max_size=8))
def test_findings_are_sorted_within_the_texts_and_do_not_overlap(texts: list[str]) -> None:
    last = (-1, 0)
    for each in SecretsDetector().find(texts):
        assert (each.text, each.start) >= last
        assert each.start < each.end <= len(texts[each.text])
        assert 0 < each.score <= 1
        last = (each.text, each.end)


_BORDER = st.sampled_from([" ", "\n", '"', "'", "=", ", ", "; ", ">", ": ", "鍵 "])


@settings(deadline=None, max_examples=200)
@given(
    st.text(max_size=300), _BORDER, st.sampled_from(PLANTED), _BORDER, st.text(max_size=300),
    st.lists(st.text(max_size=50), max_size=3),
)  # fmt: skip
def test_a_planted_secret_is_found_in_any_text(
    before: str, left: str, secret: str, right: str, after: str, others: list[str]
) -> None:
    text = f"{before}{left}{secret}{right}{after}"
    start = text.index(secret)
    covered = {
        place
        for each in SecretsDetector().find([*others, text])
        if each.text == len(others)
        for place in range(each.start, each.end)
    }
    assert covered >= set(range(start, start + len(secret)))


class _Counting:
    """An expression that counts the characters that it may read."""

    def __init__(self, expression: Any, read: list[int]) -> None:
        self._expression, self._read = expression, read

    def search(self, data: bytes, start: int, end: int) -> Any:
        self._read.append(min(end, len(data)) - start)
        return self._expression.search(data, start, end)

    def finditer(self, data: bytes, start: int = 0, end: int | None = None) -> Any:
        self._read.append((len(data) if end is None else min(end, len(data))) - start)
        return self._expression.finditer(data, start, end)


_KEYWORDS = sorted({word.decode() for rule in all_rules() for word in rule.keywords})
HOSTILE = {
    "all keywords": " ".join(_KEYWORDS),
    "all keywords as names": "=".join(_KEYWORDS),
    "names with values": "".join(f"{word}={HEX} " for word in _KEYWORDS),
    "names and one value": " ".join(_KEYWORDS[:40]) + f"={HEX}\n",
    "tokens": f"{GITHUB} {AWS} {STRIPE} ",
    "prefixes": "".join(_KEYWORDS),
    "begins of keys": "-----BEGIN PRIVATE KEY-----",
    "curl": "curl -u a:b -H x\n",
    "urls": "a://b:cdef@g ",
    "escapes": '\\"%22',
    "spaces after a name": "key" + " " * 500,
}


@pytest.mark.parametrize("pattern", HOSTILE.values(), ids=HOSTILE.keys())
def test_single_rules_read_a_bounded_multiple_of_a_hostile_text(pattern: str) -> None:
    whole = detector_module._Compiled(all_rules())
    read: list[int] = []
    for form in ("_direct", "_named"):
        counted = [(rule, _Counting(each, read)) for rule, each in getattr(whole, form)]
        setattr(whole, form, counted)
    text = (pattern * (1 + 100_000 // len(pattern)))[:100_000].encode()
    for _ in whole.matches(text, JoinedTexts([text.decode()]).limit):
        pass
    assert sum(read) <= len(text) * len(all_rules())
    read.clear()
    for _ in whole.matches(text[: len(text) // 2], JoinedTexts([text.decode()]).limit):
        pass
    half = sum(read)
    read.clear()
    for _ in whole.matches(text, JoinedTexts([text.decode()]).limit):
        pass
    assert sum(read) <= 2.5 * half + 10_000
