"""What a client carries for us: it opens here, as what it is, and nowhere else."""

from string import ascii_letters, digits
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolbus_common.crypto.key_file import KEY_BYTES
from toolbus_common.errors import UpstreamInvalidError
from toolbus_ingress.sessions.sealed_claims import (
    LONGEST,
    Claims,
    ClaimSealer,
    DoneClaims,
    SessionClaims,
    StateClaims,
    TaskClaims,
)

SEAL = ClaimSealer(b"k" * KEY_BYTES)
TASK = TaskClaims("t1", "files", "slow", "a" * 64)
KINDS = (SessionClaims, StateClaims, TaskClaims, DoneClaims)


@given(
    st.text(max_size=50), st.text(max_size=50), st.floats(allow_nan=False), st.none() | st.text()
)
def test_claims_round_trip_through_a_seal(
    sid: str, capabilities: str, expires: float, state: str | None
) -> None:
    session = SessionClaims(sid, "key_digest", "2025-11-25", capabilities, expires)
    kept = StateClaims(state, "key_digest", "request", expires)
    assert SEAL.open(SEAL.close(session), SessionClaims) == session
    assert SEAL.open(SEAL.close(kept), StateClaims) == kept


def test_equal_claims_have_different_seals() -> None:
    assert SEAL.close(TASK) != SEAL.close(TASK)


def test_a_sealed_token_fits_a_header_and_reveals_nothing() -> None:
    sealed = SEAL.close(TASK)
    assert sealed.isascii()
    assert sealed.replace("-", "").replace("_", "").isalnum()
    assert TASK.principal_id not in sealed


def test_another_key_does_not_open_a_seal() -> None:
    assert ClaimSealer(b"j" * KEY_BYTES).open(SEAL.close(TASK), TaskClaims) is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_seal_does_not_open_as_another_kind(kind: type[Claims]) -> None:
    opened = SEAL.open(SEAL.close(TASK), kind)
    assert opened == (TASK if kind is TaskClaims else None)


class SameShape(Claims, frozen=True):
    """A kind with the same members as a task."""

    task: str
    server: str
    tool: str
    principal_id: str


def test_two_kinds_of_equal_shape_stay_distinct() -> None:
    assert SEAL.open(SEAL.close(TASK), SameShape) is None


@given(st.data())
def test_an_altered_seal_does_not_open(data: st.DataObject) -> None:
    sealed = SEAL.close(TASK)
    at = data.draw(st.integers(0, len(sealed) - 1))
    other = data.draw(st.characters().filter(lambda each: each != sealed[at]))
    assert SEAL.open(sealed[:at] + other + sealed[at + 1 :], TaskClaims) is None


@pytest.mark.parametrize("length", range(3))
def test_the_last_character_of_a_seal_is_canonical(length: int) -> None:
    sealed = SEAL.close(TaskClaims("t" * length, "", "", ""))
    others = set(ascii_letters + digits + "-_+/=") - {sealed[-1]}
    assert not any(SEAL.open(sealed[:-1] + other, TaskClaims) for other in others)


@given(st.data())
def test_an_insertion_or_omission_does_not_open(data: st.DataObject) -> None:
    sealed = SEAL.close(TASK)
    at = data.draw(st.integers(0, len(sealed)))
    more = data.draw(st.text(min_size=1, max_size=5) | st.sampled_from(["=", "==", "!", "\n"]))
    assert SEAL.open(sealed[:at] + more + sealed[at:], TaskClaims) is None
    assert SEAL.open(sealed[:at] + sealed[at + 1 :], TaskClaims) in (None, TASK)
    assert at == len(sealed) or SEAL.open(sealed[:at], TaskClaims) is None


@given(
    st.none()
    | st.text()
    | st.binary()
    | st.integers()
    | st.lists(st.text())
    | st.dictionaries(st.text(), st.text())
)
def test_any_garbage_does_not_open_and_does_not_raise(garbage: Any) -> None:
    assert all(SEAL.open(garbage, kind) is None for kind in KINDS)


@pytest.mark.parametrize("garbage", ["", "A", "A" * 16, "A" * 70_000, "\ud800", "é" * 40])
def test_a_seal_of_wrong_length_or_type_does_not_open(garbage: str) -> None:
    assert SEAL.open(garbage, TaskClaims) is None


def test_a_foreign_seal_under_the_same_key_does_not_open() -> None:
    class OldTaskClaims(Claims, frozen=True):
        task: str

    OldTaskClaims.__name__ = "TaskClaims"
    assert SEAL.open(SEAL.close(OldTaskClaims("t1")), TaskClaims) is None


def test_the_largest_claims_open_and_larger_ones_are_rejected() -> None:
    def claims(size: int) -> StateClaims:
        return StateClaims("s" * size, "a" * 64, "b" * 64, 1.0)

    size = LONGEST * 3 // 4
    with pytest.raises(UpstreamInvalidError, match=str(LONGEST)):
        SEAL.close(claims(size))
    for smaller in range(size, size - 400, -1):
        try:
            sealed = SEAL.close(claims(smaller))
        except UpstreamInvalidError:
            continue
        assert len(sealed) > LONGEST - 4, "the first that fits"
        assert SEAL.open(sealed, StateClaims) == claims(smaller)
        return
    pytest.fail("a state of 48 KB must fit, but for what is sealed beside it")
