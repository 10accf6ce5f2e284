"""Authenticated encryption: a text opens unchanged, with its key, in its context, and not else."""

from base64 import urlsafe_b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolbus_common.crypto.aead import NONCE_BYTES, TAG_BYTES, Aead, DecryptionError, derived_key
from toolbus_common.crypto.sealed_tokens import Claims, TokenSealer
from toolbus_common.nats.sealed_records import Records
from toolbus_common.privacy.person_key import Master, Opened, PersonKey

KEY, OTHER = bytes(range(32)), bytes(32)


class Example(Claims, frozen=True):
    """A kind of claims for these tests."""

    name: str


@given(st.binary(max_size=200), st.binary(max_size=50))
def test_a_sealed_text_opens_in_its_context(plaintext: bytes, context: bytes) -> None:
    sealed = Aead(KEY).seal(plaintext, context)
    assert Aead(KEY).open(sealed, context) == plaintext
    assert len(sealed) == NONCE_BYTES + len(plaintext) + TAG_BYTES


@given(st.binary(max_size=40), st.data())
def test_a_text_with_one_bit_changed_does_not_open(plaintext: bytes, data: st.DataObject) -> None:
    sealed = Aead(KEY).seal(plaintext, b"context")
    at = data.draw(st.integers(0, len(sealed) * 8 - 1))
    changed = bytearray(sealed)
    changed[at // 8] ^= 1 << at % 8
    with pytest.raises(DecryptionError):
        Aead(KEY).open(bytes(changed), b"context")


def test_every_byte_of_a_sealed_text_counts() -> None:
    sealed = Aead(KEY).seal(b"text", b"context")
    for at in range(len(sealed)):
        for changed in (
            sealed[:at] + bytes([sealed[at] ^ 0xFF]) + sealed[at + 1 :],
            sealed[:at] + sealed[at + 1 :],
            sealed[:at],
            sealed[:at] + b"\0" + sealed[at:],
        ):
            with pytest.raises(DecryptionError):
                Aead(KEY).open(changed, b"context")


@given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=40))
def test_a_text_does_not_open_in_another_context(
    plaintext: bytes, context: bytes, other: bytes
) -> None:
    sealed = Aead(KEY).seal(plaintext, context)
    if context != other:
        with pytest.raises(DecryptionError):
            Aead(KEY).open(sealed, other)


@given(st.binary(max_size=100))
def test_bytes_that_were_never_sealed_do_not_open(foreign: bytes) -> None:
    with pytest.raises(DecryptionError):
        Aead(KEY).open(foreign, b"context")


def test_a_text_opens_with_its_key_only_and_equal_texts_look_different() -> None:
    sealed = Aead(KEY).seal(b"text", b"context")
    assert Aead(KEY).seal(b"text", b"context") != sealed
    with pytest.raises(DecryptionError):
        Aead(OTHER).open(sealed, b"context")


@pytest.mark.parametrize("length", [0, 16, 24, 31, 33])
def test_a_key_has_32_bytes(length: int) -> None:
    with pytest.raises(ValueError, match="needs 32"):
        Aead(bytes(length))


def test_each_purpose_and_secret_has_a_key_of_its_own() -> None:
    keys = {derived_key(secret, use) for secret in (b"a", b"b") for use in (b"", b"x", b"y")}
    assert len(keys) == 6
    assert {len(key) for key in keys} == {32}


def test_the_key_of_a_purpose_follows_the_standard() -> None:
    # RFC 5869, test case 3 (no salt, no info), of which 32 bytes are used.
    expected = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
    assert derived_key(b"\x0b" * 22, b"").hex() == expected


def test_texts_that_earlier_code_stored_still_open() -> None:
    """Open values that were stored before the encryption of all of them moved to one module."""
    token = "wzkwPhOdJR80REjIOgdfYJmT7pH5peju8aOmFVwm_Cw1"
    assert TokenSealer(KEY).open(token, Example) == Example("ann")
    content = (
        "~4C4O7qLE6xWPSUa88iLhkw.RIllZSitj7YtTZj_zSWmFL-4JbX_2Lb1_1qmUH7Hfj8RqR5uPs2D04xpYMpnuOrJ"
        "Uka-xliA8Zfa8ZrSQ69Xalwf9T1iQplU1pTj1pXk1mTQemY1xZA"
    )
    person = PersonKey("user:ann", KEY)
    opened = person.open(content)
    assert isinstance(opened, Opened)
    assert opened.text == "an address"
    entry = bytes.fromhex(
        "5c3eb8ce31992438d7e8f60cb44e579aad3ad06fa5b259489d3e1e15d747745b48536931d9e1e58a6c0838a7"
        "0483f7a3a56c0a344f85d5ef204e3780007ec83cc939805303ee85dacfd7e8fd87db27e1a2"
    )
    assert Master(KEY).open(Master(KEY).names.entry_of("user:ann"), entry) == person
    record = bytes.fromhex(
        "0171ce30fa67a540d610b32646a82df32cd6bce80075345f3778968ef87be0367469c404139cf7660eebcdc2"
        "5049"
    )
    assert Records("tb_tasks", [KEY]).open("one", record) == b"arguments"


def test_a_token_is_read_in_its_one_spelling_only() -> None:
    sealer = TokenSealer(KEY)
    token = sealer.close(Example("ann"))
    assert len(urlsafe_b64decode(token + "=" * (-len(token) % 4))) > NONCE_BYTES + TAG_BYTES
    for other in (f"{token}=", f" {token}", f"{token}\n", f"{token[:5]}\n{token[5:]}", f"{token}+"):
        assert sealer.open(other, Example) is None
