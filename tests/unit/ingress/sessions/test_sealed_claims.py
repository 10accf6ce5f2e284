"""What a client carries for us: it opens here, as what it is, and nowhere else."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from string import ascii_letters, digits
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolbus_common.crypto.key_file import KEY_BYTES, load_key
from toolbus_common.errors import UpstreamFaultError
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
def test_what_was_sealed_opens_as_it_was(
    sid: str, capabilities: str, expires: float, state: str | None
) -> None:
    session = SessionClaims(sid, "key_digest", "2025-11-25", capabilities, expires)
    kept = StateClaims(state, "key_digest", "request", expires)
    assert SEAL.open(SEAL.close(session), SessionClaims) == session
    assert SEAL.open(SEAL.close(kept), StateClaims) == kept


def test_two_seals_of_the_same_are_not_alike() -> None:
    assert SEAL.close(TASK) != SEAL.close(TASK)


def test_a_sealed_token_fits_a_header_and_reveals_nothing() -> None:
    sealed = SEAL.close(TASK)
    assert sealed.isascii()
    assert sealed.replace("-", "").replace("_", "").isalnum()
    assert TASK.principal_id not in sealed


def test_another_key_opens_nothing() -> None:
    assert ClaimSealer(b"j" * KEY_BYTES).open(SEAL.close(TASK), TaskClaims) is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_seal_opens_as_no_other_kind(kind: type[Claims]) -> None:
    opened = SEAL.open(SEAL.close(TASK), kind)
    assert opened == (TASK if kind is TaskClaims else None)


class Twin(Claims, frozen=True):
    """The same members as a task, under another name."""

    task: str
    server: str
    tool: str
    principal_id: str


def test_the_kind_is_a_name_and_not_a_shape() -> None:
    assert SEAL.open(SEAL.close(TASK), Twin) is None


@given(st.data())
def test_any_altered_character_opens_nothing(data: st.DataObject) -> None:
    sealed = SEAL.close(TASK)
    at = data.draw(st.integers(0, len(sealed) - 1))
    other = data.draw(st.characters().filter(lambda each: each != sealed[at]))
    assert SEAL.open(sealed[:at] + other + sealed[at + 1 :], TaskClaims) is None


@pytest.mark.parametrize("length", range(3))
def test_no_other_last_character_spells_the_same_seal(length: int) -> None:
    sealed = SEAL.close(TaskClaims("t" * length, "", "", ""))
    others = set(ascii_letters + digits + "-_+/=") - {sealed[-1]}
    assert not any(SEAL.open(sealed[:-1] + other, TaskClaims) for other in others)


@given(st.data())
def test_anything_put_in_or_left_out_opens_nothing(data: st.DataObject) -> None:
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
def test_garbage_of_any_kind_opens_nothing_and_never_raises(garbage: Any) -> None:
    assert all(SEAL.open(garbage, kind) is None for kind in KINDS)


@pytest.mark.parametrize("garbage", ["", "A", "A" * 16, "A" * 70_000, "\ud800", "é" * 40])
def test_what_is_too_short_too_long_or_no_text_opens_nothing(garbage: str) -> None:
    assert SEAL.open(garbage, TaskClaims) is None


def test_a_seal_of_something_else_by_the_same_key_opens_nothing() -> None:
    class TaskClaimsOfOld(Claims, frozen=True):
        task: str

    TaskClaimsOfOld.__name__ = "TaskClaims"
    assert SEAL.open(SEAL.close(TaskClaimsOfOld("t1")), TaskClaims) is None


def test_a_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "state" / "seal.key"
    made = load_key(path)
    assert len(made) == KEY_BYTES
    assert load_key(path) == made
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["seal.key"]


def test_all_who_begin_at_once_get_the_same_key(tmp_path: Path) -> None:
    path = tmp_path / "seal.key"
    with ThreadPoolExecutor(16) as pool:
        keys = set(pool.map(lambda _: load_key(path), range(64)))
    assert keys == {path.read_bytes()}
    assert [each.name for each in tmp_path.iterdir()] == ["seal.key"]


def test_a_key_that_is_given_needs_no_place_to_write(tmp_path: Path) -> None:
    (tmp_path / "seal.key").write_bytes(b"g" * KEY_BYTES)
    before = tmp_path.stat().st_mtime_ns
    assert load_key(tmp_path / "seal.key") == b"g" * KEY_BYTES
    assert tmp_path.stat().st_mtime_ns == before, "nothing was made beside it"


def test_a_file_without_a_key_is_rejected_with_the_fix(tmp_path: Path) -> None:
    path = tmp_path / "seal.key"
    path.write_bytes(os.urandom(KEY_BYTES - 1))
    with pytest.raises(ValueError, match="remove it to create a new key"):
        load_key(path)


def test_the_largest_that_is_sealed_opens_and_what_is_larger_is_refused_at_once() -> None:
    def claims(size: int) -> StateClaims:
        return StateClaims("s" * size, "a" * 64, "b" * 64, 1.0)

    size = LONGEST * 3 // 4
    with pytest.raises(UpstreamFaultError, match=str(LONGEST)):
        SEAL.close(claims(size))
    for smaller in range(size, size - 400, -1):
        try:
            sealed = SEAL.close(claims(smaller))
        except UpstreamFaultError:
            continue
        assert len(sealed) > LONGEST - 4, "the first that fits"
        assert SEAL.open(sealed, StateClaims) == claims(smaller)
        return
    pytest.fail("a state of 48 KB must fit, but for what is sealed beside it")
