"""Signed tokens: which are verified, and which never are, however they are signed."""

import json
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, Key, KeySet, OctKey, OKPKey, RSAKey

from harness.oauth.dpop_proofs import Holder, decoded, encoded, signed_text
from toolbus_common.crypto.jws import SIGNATURES, JwsError
from toolbus_oauth.keys.verified_jwt import parse_verified

ALGORITHMS = ("ES256", "RS256", "PS256", "EdDSA")
ANN, EVE = Holder(), Holder()
PUBLIC = {**ANN.jwk, "kid": "one"}
KEYS = KeySet.import_key_set({"keys": [PUBLIC]})
CLAIMS = '{"sub":"ann"}'


def verified(text: str, keys: KeySet = KEYS) -> dict[str, Any]:
    return parse_verified(text, keys, ALGORITHMS)[1]


def token(signer: Holder = ANN, claims: str = CLAIMS, **header: Any) -> str:
    return signed_text(signer, json.dumps({"alg": "ES256", "kid": "one", **header}), claims)


def test_a_token_of_the_key_is_verified_with_its_header_and_claims() -> None:
    header, claims = parse_verified(token(typ="at+jwt"), KEYS, ALGORITHMS)
    assert header == {"alg": "ES256", "kid": "one", "typ": "at+jwt"}
    assert claims == {"sub": "ann"}


@pytest.mark.parametrize(
    ("algorithm", "key"),
    [
        ("ES256", ECKey.generate_key("P-256")),
        ("RS256", RSAKey.generate_key(2048)),
        ("PS256", RSAKey.generate_key(2048)),
        ("EdDSA", OKPKey.generate_key("Ed25519")),
    ],
)
def test_each_configured_algorithm_is_verified(algorithm: str, key: Key) -> None:
    message = f"{encoded(json.dumps({'alg': algorithm}).encode())}.{encoded(CLAIMS.encode())}"
    text = f"{message}.{encoded(SIGNATURES[algorithm].sign(message.encode(), key))}"
    assert verified(text, KeySet([key])) == {"sub": "ann"}
    changed = f"{text[:-4]}{'AAAA' if not text.endswith('AAAA') else 'BBBB'}"
    with pytest.raises(JwsError):
        verified(changed, KeySet([key]))
    with pytest.raises(JwsError):
        parse_verified(text, KeySet([key]), ["ES384"])


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "HS256"},
        {"alg": "ES384"},
        {"alg": "RS256"},
        {"alg": "EdDSA"},
        {"alg": "es256"},
        {"alg": ["ES256"]},
        {"alg": None},
        {"kid": "two"},
        {"kid": 1},
        {"kid": ["one"]},
        {"crit": ["exp"]},
        {"crit": ["b64"], "b64": False},
        {"b64": False},
        {"typ": 7},
        {"unknown": "member"},
    ],
)
def test_a_token_with_another_header_is_not_verified(header: dict[str, Any]) -> None:
    with pytest.raises(JwsError):
        verified(token(**header))


def test_no_key_that_a_token_brings_along_is_used() -> None:
    for brought in (
        {"jwk": EVE.jwk},
        {"jwk": {**EVE.jwk, "kid": "one"}},
        {"jku": "https://evil.test/keys"},
        {"x5u": "https://evil.test/certificate"},
        {"x5c": ["AAAA"]},
    ):
        with pytest.raises(JwsError):
            verified(token(EVE, **brought))


def test_a_public_key_is_no_shared_secret() -> None:
    for secret in (json.dumps(PUBLIC), json.dumps(ANN.jwk)):
        key = OctKey.import_key(secret.encode())
        text = jwt.encode({"alg": "HS256", "kid": "one"}, {"sub": "ann"}, key, ["HS256"])
        with pytest.raises(JwsError):
            verified(text)


@pytest.mark.parametrize("more", [{"use": "enc"}, {"alg": "ES384"}, {"key_ops": ["encrypt"]}])
def test_a_key_for_another_purpose_verifies_nothing(more: dict[str, Any]) -> None:
    with pytest.raises(JwsError):
        verified(token(), KeySet.import_key_set({"keys": [{**PUBLIC, **more}]}))


def test_of_several_keys_the_token_names_its_own() -> None:
    both = KeySet.import_key_set({"keys": [PUBLIC, {**EVE.jwk, "kid": "two"}]})
    assert verified(token(), both)
    assert verified(token(EVE, kid="two"), both)
    for text in (token(EVE), token(kid="two"), signed_text(ANN, '{"alg":"ES256"}', CLAIMS)):
        with pytest.raises(JwsError):
            verified(text, both)


@pytest.mark.parametrize(
    "claims", ['{"sub":"ann","sub":"eve"}', '{"sub":"ann","exp":NaN}', '["ann"]', '{"sub":"ann"}x']
)
def test_claims_that_programs_may_read_differently_are_not_verified(claims: str) -> None:
    with pytest.raises(JwsError):
        verified(token(claims=claims))


def test_every_character_of_a_token_counts() -> None:
    text = token()
    for at, character in enumerate(text):
        other = "A" if character != "A" else "B"
        with pytest.raises(JwsError):
            verified(f"{text[:at]}{other}{text[at + 1 :]}")
    assert len(decoded(text.rpartition(".")[2])) == 64
