"""Canonical JSON: equal values have equal digests, different values different ones."""

import json
import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolbus_common.crypto.canonical_json import LARGEST, UncanonicalError, canonical, digest_of

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(
    SCALARS.filter(lambda value: not isinstance(value, float) or math.isfinite(value)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


# Source: RFC 8785, 3.2.2 and appendix B.
@pytest.mark.parametrize(
    ("value", "written"),
    [
        (-0.0, "0"),
        (5e-324, "5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (9007199254740992.0, "9007199254740992"),
        (295147905179352830000.0, "295147905179352830000"),
        (9.999999999999997e22, "9.999999999999997e+22"),
        (1e23, "1e+23"),
        (999999999999999900000.0, "999999999999999900000"),
        (1e21, "1e+21"),
        (9.999999999999997e-7, "9.999999999999997e-7"),
        (0.000001, "0.000001"),
        (333333333.33333329, "333333333.3333333"),
        (-0.0000033333333333333333, "-0.0000033333333333333333"),
        (1424953923781206.2, "1424953923781206.2"),
        (4.50, "4.5"),
        (2e-3, "0.002"),
        (1.0, "1"),
        ('\u20ac$\x0f\nA\'B"\\\\"/', '"\u20ac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"'),
        ([56, {"d": True, "10": None, "1": []}], '[56,{"1":[],"10":null,"d":true}]'),
    ],
)
def test_values_are_serialized_as_in_the_rfc(value: Any, written: str) -> None:
    assert canonical(value).decode() == written


def test_members_are_sorted_by_utf_16_code_units() -> None:
    names = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\x80", "\u00f6"]
    ordered = ["\r", "1", "\x80", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]
    assert list(json.loads(canonical(dict.fromkeys(names, 0)))) == ordered


def shuffled(value: Any, chance: random.Random) -> Any:
    """Return the same JSON value with its members in another order."""
    if isinstance(value, dict):
        members = [(name, shuffled(inner, chance)) for name, inner in value.items()]
        chance.shuffle(members)
        return dict(members)
    return [shuffled(each, chance) for each in value] if isinstance(value, list) else value


@settings(deadline=None)
@given(VALUES, st.randoms(use_true_random=False))
def test_the_order_of_members_does_not_matter(value: Any, chance: random.Random) -> None:
    assert digest_of(shuffled(value, chance)) == digest_of(value)


@settings(deadline=None)
@given(VALUES)
def test_canonical_text_is_json_and_stays_the_same(value: Any) -> None:
    assert canonical(json.loads(canonical(value))) == canonical(value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, "1"), (1, True), (0, False), (0, None), ("", None), ([], {}), ([1, 2], [2, 1]),
        ("e\u0301", "\u00e9"), ("a", "\u0430"), ("a", "a\u200b"), ({"a": 1}, {"A": 1}),
        (2**53, 2**53 + 1), (10**40, 10**40 + 1), ("null", None), ({"a": None}, {}),
    ],
)  # fmt: skip
def test_different_values_have_different_digests(one: Any, other: Any) -> None:
    assert digest_of(one) != digest_of(other)


def test_a_whole_number_is_the_same_with_a_point() -> None:
    assert digest_of({"n": 1.0}) == digest_of({"n": 1})


@pytest.mark.parametrize("bad", [math.nan, math.inf, {1: 2}, {"a": object()}, b"x"])
def test_a_value_that_is_not_json_has_no_digest(bad: Any) -> None:
    with pytest.raises(UncanonicalError):
        digest_of(bad)


def test_depth_and_size_are_bounded() -> None:
    deep: Any = []
    for _ in range(10_000):
        deep = [deep]
    with pytest.raises(UncanonicalError, match="deeper"):
        digest_of(deep)
    with pytest.raises(UncanonicalError, match="longer"):
        digest_of("x" * LARGEST)
