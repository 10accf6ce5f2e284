"""Compact JWS: one spelling of each text is read, and all others are rejected."""

import json
from string import ascii_letters, digits
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws as others
from joserfc import jwt
from joserfc.jwk import ECKey

from harness.oauth.dpop_proofs import decoded, encoded
from toolbus_common.crypto.jws import LONGEST, JwsError, parse
from toolbus_common.crypto.p256 import P256Key, header_of

KEY = ECKey.generate_key("P-256")


def signed(header: str, claims: str = '{"sub":"ann"}') -> str:
    """Return a JWS of these texts, which need not be JSON, signed with the key."""
    message = f"{encoded(header.encode())}.{encoded(claims.encode())}"
    algorithm = others.JWSRegistry(algorithms=["ES256"]).get_alg("ES256")
    signature = algorithm.sign(message.encode(), KEY)
    return f"{message}.{encoded(signature)}"


def test_a_jws_is_parsed_to_header_claims_and_what_was_signed() -> None:
    text = signed('{"alg":"ES256"}')
    found = parse(text)
    assert (found.header, found.claims) == ({"alg": "ES256"}, {"sub": "ann"})
    assert found.message == text.rpartition(".")[0].encode()
    assert len(found.signature) == 64


def test_another_program_reads_what_a_key_signs_and_its_stored_form_is_the_same_key() -> None:
    key = P256Key.new()
    text = key.signed(header_of(typ="x"), {"sub": "ann"})
    public = ECKey.import_key(key.public)
    assert others.deserialize_compact(text, public, ["ES256"]).payload == b'{"sub":"ann"}'
    assert P256Key.of(key.kept).public == key.public
    assert len(key.kept) == 43
    assert "d" not in key.public


def test_a_key_that_earlier_code_stored_is_the_same_key() -> None:
    key = P256Key.of("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8")
    assert key.public == {
        "kty": "EC",
        "crv": "P-256",
        "x": "elkxgIYMQDfIPBJ0mEXI7hQk3Sl_rcuJXjWCVdLH0rI",
        "y": "qMolWA8mJv5XkGL_G5n_kcJKDaBvsytb4gFIySSfVlA",
    }
    assert key.kept == "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"


@pytest.mark.parametrize(
    "header",
    [
        '{"alg":"ES256","alg":"ES256"}',
        '{"alg":"none","alg":"ES256"}',
        '{"alg":"ES256","jwk":{},"jwk":{}}',
        '{"alg":"ES256","jwk":{"kty":"EC","kty":"EC"}}',
        '{"alg":"ES256","crit":["b64"],"b64":true}',
        '{"alg":"ES256","crit":["exp"],"exp":1}',
        '{"alg":"ES256","crit":[]}',
        '{"alg":"ES256","crit":null}',
        '{"alg":"ES256","b64":false}',
        '{"alg":"ES256","b64":true}',
        '{"alg":"ES256","x":NaN}',
        '{"alg":"ES256","x":Infinity}',
        '{"alg":"ES256",}',
        '{"alg":"ES256"} x',
        '["alg","ES256"]',
        '"ES256"',
        "null",
        '{"alg":"ES256","x":' + "[" * 100 + "]" * 100 + "}",
        '{"alg":"ES256","x":"\\ud800"}',
    ],
)
def test_a_header_that_programs_may_read_differently_is_rejected(header: str) -> None:
    with pytest.raises(JwsError):
        parse(signed(header))


@pytest.mark.parametrize(
    "claims",
    [
        '{"sub":"ann","sub":"eve"}',
        '{"sub":"ann","cnf":{"jkt":"a","jkt":"b"}}',
        '{"exp":NaN}',
        '{"exp":1e999}',
        '["ann"]',
        "",
        "{",
        '{"sub":"\\ud800"}',
    ],
)
def test_claims_that_programs_may_read_differently_are_rejected(claims: str) -> None:
    with pytest.raises(JwsError):
        parse(signed('{"alg":"ES256"}', claims))


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("form", ["{}=", "{}==", " {}", "{} ", "{}\n", "{}+", "{}/", "\t{}"])
def test_no_part_may_have_padding_space_or_foreign_characters(part: int, form: str) -> None:
    parts = signed('{"alg":"ES256"}').split(".")
    parts[part] = form.format(parts[part])
    with pytest.raises(JwsError):
        parse(".".join(parts))


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("spaces", [0, 1, 2])
def test_no_other_last_character_spells_the_same_bytes(part: int, spaces: int) -> None:
    text = signed('{"alg":"ES256"' + " " * spaces + "}", '{"a":1' + " " * spaces + "}")
    parts = text.split(".")
    for last in ascii_letters + digits + "-_":
        other = parts[part][:-1] + last
        if other != parts[part] and decoded(other) == decoded(parts[part]):
            with pytest.raises(JwsError):
                parse(".".join(other if at == part else parts[at] for at in range(3)))


@pytest.mark.parametrize("form", ["", "x", "{}.", ".{}", "{}.x", "{}.x.x", " {}", "{}\n", "{},{}"])
def test_more_or_less_than_one_jws_is_rejected(form: str) -> None:
    with pytest.raises(JwsError):
        parse(form.replace("{}", signed('{"alg":"ES256"}')))


def test_a_jws_without_signature_or_payload_is_rejected() -> None:
    header, claims, signature = signed('{"alg":"ES256"}').split(".")
    for parts in ((header, claims, ""), (header, "", signature), ("", claims, signature)):
        with pytest.raises(JwsError):
            parse(".".join(parts))


def test_a_jws_that_is_too_long_is_not_looked_at() -> None:
    text = signed('{"alg":"ES256"}', json.dumps({"x": "x" * LONGEST}))
    with pytest.raises(JwsError):
        parse(text)
    assert parse(text, 2 * LONGEST).claims["x"]
    with pytest.raises(JwsError):
        parse(signed('{"alg":"ES256"}'), 50)


@pytest.mark.parametrize(
    ("header", "claims"),
    [
        ('{"alg":"none","alg":"ES256"}', '{"sub":"ann"}'),
        ('{"alg":"ES256"}', '{"sub":"eve","sub":"ann"}'),
        ('{"alg":"ES256"}', '{"sub":"ann","exp":NaN}'),
        ('{"alg":"ES256","b64":true,"crit":["b64"]}', '{"sub":"ann"}'),
    ],
)
def test_the_library_alone_accepts_what_is_rejected_here(header: str, claims: str) -> None:
    """Why texts are parsed here first (ADR 30). If this fails, the library has become stricter."""
    text = signed(header, claims)
    assert jwt.decode(text, KEY, algorithms=["ES256"]).claims["sub"] == "ann"
    with pytest.raises(JwsError):
        parse(text)


@given(st.text() | st.from_regex(r"[A-Za-z0-9_=-]{0,20}(\.[A-Za-z0-9_=-]{0,20}){0,4}"))
def test_any_text_is_parsed_or_rejected(text: str) -> None:
    try:
        found: Any = parse(text)
    except JwsError:
        return
    assert isinstance(found.header, dict)
