"""Keys that clients register: public ones only, and none that is weak or too costly."""

from typing import Any

import pytest
from joserfc.jwk import ECKey, RSAKey

from harness.oauth.dpop_proofs import encoded
from toolbus_oauth.clients.registry import parse_metadata
from toolbus_oauth.web.errors import OAuthError

EC = ECKey.generate_key("P-256")
RSA = RSAKey.generate_key(2048)
PUBLIC: dict[str, Any] = dict(RSA.as_dict(private=False))
PRIVATE: dict[str, Any] = dict(RSA.as_dict(private=True))


def registered(*keys: Any) -> Any:
    return parse_metadata({"grant_types": [], "jwks": {"keys": list(keys)}}, "id").keys


def test_public_keys_are_registered() -> None:
    keys = (PUBLIC, dict(EC.as_dict(private=False)))
    assert registered(*keys) == {"keys": list(keys)}


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
@pytest.mark.parametrize(
    "key",
    [
        PRIVATE,
        dict(EC.as_dict(private=True)),
        {**PUBLIC, "p": PRIVATE["p"]},
        {**PUBLIC, "p": PRIVATE["p"], "q": PRIVATE["q"]},
        {"kty": "oct", "k": "AAAA"},
    ],
)
def test_a_key_with_private_members_is_rejected(key: dict[str, Any]) -> None:
    with pytest.raises(OAuthError, match="public keys only"):
        registered(PUBLIC, key)


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
@pytest.mark.parametrize("bits", [1024, 8192])
def test_an_rsa_key_that_is_weak_or_too_costly_is_rejected(bits: int) -> None:
    number = encoded(((1 << bits) - 1).to_bytes(bits // 8, "big"))
    with pytest.raises(OAuthError, match="2048 to 4096 bits"):
        registered({"kty": "RSA", "e": "AQAB", "n": number})


@pytest.mark.parametrize(
    "keys",
    [
        "text", {"keys": "text"}, {"keys": ["text"]}, {"keys": [{}]}, {"keys": [{"kty": "EC"}]},
        {"keys": [{"kty": "EC", "crv": "P-257", "x": "AA", "y": "AA"}]},
        {"keys": [{"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"}]},
        {"keys": [{"kty": 7}]},
    ],
)  # fmt: skip
def test_what_is_no_set_of_keys_is_rejected(keys: Any) -> None:
    with pytest.raises(OAuthError, match="jwks"):
        parse_metadata({"grant_types": [], "jwks": keys}, "id")
