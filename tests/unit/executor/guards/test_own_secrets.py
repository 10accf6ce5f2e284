"""Secrets that Toolbus itself holds, in plain and encoded form."""

import json
from base64 import b64encode, urlsafe_b64encode
from threading import Thread
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolbus_executor.guards.own_secrets import RULE, SHORTEST, OwnSecrets

SECRET = 'cAnary "7/+é secret'


def _encodings(value: str) -> dict[str, str]:
    raw = value.encode()
    return {
        "plain": value,
        "json": json.dumps(value),
        "json in ASCII": json.dumps(value, ensure_ascii=True),
        "url": quote(value),
        "url with plus": quote_plus(value),
        "hex": raw.hex(),
        "upper hex": raw.hex().upper(),
        "base64": b64encode(raw).decode(),
        "base64 of a header": b64encode(b"user:" + raw).decode(),
        "base64 inside": b64encode(b"ab" + raw + b"tail").decode(),
        "base64 for urls": urlsafe_b64encode(b"a" + raw).decode(),
    }


@pytest.mark.parametrize("encoding", _encodings(SECRET))
def test_a_value_is_found_in_its_usual_encodings(encoding: str) -> None:
    text = f"before {_encodings(SECRET)[encoding]} after"
    (finding,) = OwnSecrets([SECRET]).find(["other", text])
    assert (finding.rule, finding.text) == (RULE, 1)
    # Characters of Base64 at the borders also belong to what is before and after the value.
    assert 7 <= finding.start <= 7 + len("user:") * 8 / 6 + 1
    assert len(text) - 6 - len("tail") * 8 / 6 - 3 <= finding.end <= len(text) - 6


def test_a_value_that_is_too_short_is_not_searched() -> None:
    assert OwnSecrets(["a" * (SHORTEST - 1)]).find(["a" * 100]) == []


def test_nothing_is_found_without_values() -> None:
    assert OwnSecrets().find(["text"]) == []


def test_values_that_begin_alike_are_distinct() -> None:
    values = [f"-----BEGIN PRIVATE KEY-----{number:040}" for number in range(200)]
    text = f"x{values[17]}y{values[3][:-1]}"
    (finding,) = OwnSecrets(values).find([text])
    assert text[finding.start : finding.end] == values[17]


def test_replaced_values_are_no_longer_found_and_the_version_changes() -> None:
    own = OwnSecrets(["first-secret"])
    before = own.version
    own.replace(["second-secret"])
    own.add("third-secret")
    assert own.version != before
    assert own.find(["first-secret"]) == []
    assert len(own.find(["second-secret", "third-secret"])) == 2


def test_no_value_is_lost_when_threads_add_them() -> None:
    own = OwnSecrets()
    values = [f"value-of-thread-{number:04}" for number in range(40)]
    threads = [Thread(target=own.add, args=(value,)) for value in values]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(own.find(values)) == len(values)


def test_ten_thousand_values_are_found_at_once() -> None:
    values = [f"{number:05}-value-of-many" for number in range(10_000)]
    own = OwnSecrets(values)
    assert [each.text for each in own.find(["nothing", values[1234], values[9999]])] == [1, 2]


def test_neither_the_representation_nor_the_version_contains_a_value() -> None:
    own = OwnSecrets([SECRET])
    assert SECRET not in f"{own!r} {own.version}"
    assert own.version != OwnSecrets([SECRET]).version


@given(st.text(max_size=100), st.text(min_size=SHORTEST, max_size=60), st.text(max_size=100))
def test_a_planted_value_is_covered_in_any_text(before: str, value: str, after: str) -> None:
    text = f"{before}{value}{after}"
    findings = OwnSecrets([value]).find([text])
    start = len(before)
    assert any(each.start <= start and each.end >= start + len(value) for each in findings)
