"""DPoP proofs (RFC 9449): which proofs are valid, and each only once."""

import json
import os
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey

from harness.oauth.dpop_proofs import Holder, decoded, encoded, read, signed_text
from toolbus_common.crypto.dpop.client import ProofKey, bare
from toolbus_common.crypto.dpop.proof import Proof, ProofError, digest_of, proven
from toolbus_common.crypto.dpop.replay_check import Nonces, ProofChecker, UsedProofs
from toolbus_common.crypto.sealed_tokens import TokenSealer
from toolbus_common.errors import OverloadedError

URL = "https://gateway.test/oauth/token"
ANN = Holder()
# The example of RFC 9449 section 4.1, and the thumbprint its section 6.1 gives of that key.
EXAMPLE = (
    "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNo"
    "UklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERW"
    "clUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh"
    "0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8"
    "v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg"
)
EXAMPLE_KEY, EXAMPLE_TIME = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I", 1562262616


def verified(text: str, **more: Any) -> Proof:
    return proven(text, "POST", URL, time.time(), **more)


def test_the_rfcs_example_is_accepted() -> None:
    at = ("POST", "https://server.example.com/token", EXAMPLE_TIME + 1)
    assert proven(EXAMPLE, *at).key == EXAMPLE_KEY
    with pytest.raises(ProofError, match="not signed"):
        proven(f"{EXAMPLE[:-2]}A{EXAMPLE[-1]}", *at)


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "RS256"])
def test_a_proof_of_each_advertised_algorithm_is_accepted(algorithm: str) -> None:
    holder = Holder(algorithm)
    assert verified(holder.proof("POST", URL)).key == holder.jkt
    other = Holder(algorithm)
    with pytest.raises(ProofError, match="not signed"):
        verified(holder.proof("POST", URL, header={"jwk": other.jwk}))


def test_proofs_interoperate_with_another_implementation() -> None:
    key = ECKey.generate_key("P-256")
    header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": key.as_dict(private=False)}
    claims = {"jti": "1", "htm": "POST", "htu": URL, "iat": time.time()}
    made = jwt.encode(header, claims, key, algorithms=["ES256"])
    assert verified(made).key == key.thumbprint()
    ours = ProofKey.new()
    claims, jkt = read(ours.proof("GET", "https://docs.test/mcp", token="t", nonce="n"))
    assert (claims["htm"], claims["htu"], claims["nonce"]) == ("GET", "https://docs.test/mcp", "n")
    assert claims["ath"] == digest_of("t")
    assert read(ProofKey.of(ours.kept).proof("GET", URL))[1] == jkt
    assert verified(ours.proof("POST", URL)).key == jkt


@pytest.mark.parametrize(
    ("header", "why"),
    [
        ({"alg": "none"}, "alg must be"),
        ({"alg": "HS256"}, "alg must be"),
        ({"alg": "ES384"}, "alg must be"),
        ({"alg": "RS256"}, "not a key for RS256"),
        ({"typ": "JWT"}, "typ must be"),
        ({"crit": ["x"]}, "must not have 'crit'"),
        ({"jwk": ANN.private}, "private key"),
        ({"jwk": {"kty": "oct", "k": "AAAA"}}, "private key"),
        ({"jwk": {"kty": "oct"}}, "not a key for ES256"),
        ({"jwk": {**ANN.jwk, "x": "AAAA"}}, "not a key for ES256"),
        ({"jwk": {**ANN.jwk, "x": ANN.jwk["y"]}}, "not a key for ES256"),
        ({"jwk": {**ANN.jwk, "x": f"{ANN.jwk['x']}="}}, "cannot be read"),
        ({"jwk": {**ANN.jwk, "x": 7}}, "cannot be read"),
        ({"jwk": {**ANN.jwk, "x": f"AAAA{ANN.jwk['x']}"}}, "not the canonical form"),
        ({"jwk": {**ANN.jwk, "x": f" {ANN.jwk['x']}"}}, "cannot be read"),
        ({"jwk": {**ANN.jwk, "x": encoded(bytes(32))}}, "not a key for ES256"),
        ({"jwk": {**ANN.jwk, "x": encoded(b"\xff" * 32)}}, "not a key for ES256"),
        ({"jwk": {**ANN.jwk, "crv": "P-384"}}, "not a key for ES256"),
        ({"jwk": {**ANN.jwk, "crv": None}}, "not a key for ES256"),
        ({"jwk": {**ANN.jwk, "kty": "ec"}}, "not a key for ES256"),
        ({"jwk": {**ANN.jwk, "d": None}}, "private key"),
        ({"jwk": {**ANN.jwk, "k": "AAAA"}}, "private key"),
        ({"alg": "es256"}, "alg must be"),
        ({"alg": "ES256K"}, "alg must be"),
        ({"alg": "Ed448"}, "alg must be"),
        ({"alg": "PS256"}, "alg must be"),
        ({"alg": ["ES256"]}, "is malformed"),
        ({"crit": []}, "must not have 'crit'"),
        ({"crit": None}, "must not have 'crit'"),
        ({"b64": False, "crit": ["b64"]}, "must not have 'crit'"),
        ({"b64": False}, "must not have 'crit'"),
        ({"b64": True}, "must not have 'crit'"),
        ({"typ": "dpop+jwt "}, "typ must be"),
        ({"typ": ["dpop+jwt"]}, "is malformed"),
        ({"x5c": "x" * 5000}, "must contain one proof"),
        ({"jwk": None}, "is malformed"),
    ],
)
def test_a_proof_of_another_type_is_rejected(header: Any, why: str) -> None:
    with pytest.raises(ProofError, match=why):
        verified(ANN.proof("POST", URL, header=header))


def test_members_that_are_repeated_prove_nothing() -> None:
    valid = ANN.proof("POST", URL)
    header, claims = (decoded(each).decode() for each in valid.split(".")[:2])
    for other, more in ((header, '"typ":"dpop+jwt"'), (header, '"alg":"ES256"'), (header, '"x":1')):
        text = signed_text(ANN, f"{other[:-1]},{more}}}", claims)
        if '"x"' in more:
            assert verified(text).key == ANN.jkt, "a member of no meaning is ignored"
        else:
            with pytest.raises(ProofError, match="not strict JSON"):
                verified(text)
    inner = json.dumps(ANN.jwk)
    repeated = header.replace(inner, f'{inner[:-1]},"kty":"EC"}}')
    assert repeated != header
    for changed in (
        (repeated, claims),
        (header, f'{claims[:-1]},"htm":"POST"}}'),
        (header, claims.replace('"htm"', '"htm":"GET","htm"')),
        (header, f'{claims[:-1]},"extra":NaN}}'),
    ):
        with pytest.raises(ProofError, match="not strict JSON"):
            verified(signed_text(ANN, *changed))


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "RS256"])
def test_a_signature_has_one_form_and_length(algorithm: str) -> None:
    holder = Holder(algorithm)
    message, _, text = holder.proof("POST", URL).rpartition(".")
    signature = decoded(text)
    half = len(signature) // 2
    for other in (
        signature[:-1],
        signature + b"\0",
        b"\0" + signature,
        bytes(len(signature)),
        signature[half:] + signature[:half],
        b"\xff" * len(signature),
    ):
        with pytest.raises(ProofError, match="not signed"):
            verified(f"{message}.{encoded(other)}")
    if algorithm == "ES256":
        numbers = (int.from_bytes(each, "big") for each in (signature[:half], signature[half:]))
        with pytest.raises(ProofError, match="not signed"):
            verified(f"{message}.{encoded(encode_dss_signature(*numbers))}")


def test_no_part_of_a_proof_has_a_second_spelling() -> None:
    parts = ANN.proof("POST", URL).split(".")
    for at in range(3):
        for form in ("{}=", "{}==", " {}", "{} ", "{}\n", "{}+"):
            other = [form.format(each) if at == place else each for place, each in enumerate(parts)]
            with pytest.raises(ProofError, match="must contain one proof"):
                verified(".".join(other))


@pytest.mark.parametrize(
    ("algorithm", "name"), [("RS256", "n"), ("RS256", "e"), ("ES256", "y"), ("EdDSA", "x")]
)
def test_a_key_has_one_spelling(algorithm: str, name: str) -> None:
    """Another spelling of the same number would have another thumbprint."""
    holder = Holder(algorithm)
    number = holder.jwk[name]
    for other in (encoded(b"\0" + decoded(number)), f"{number}=", f"{number}==", f"{number}\n"):
        proof = holder.proof("POST", URL, header={"jwk": {**holder.jwk, name: other}})
        with pytest.raises(ProofError, match="its jwk"):
            verified(proof)


def test_a_key_of_another_curve_proves_nothing() -> None:
    for other in (ECKey.generate_key("P-384"), OKPKey.generate_key("Ed448")):
        jwk = dict(other.as_dict(private=False))
        for algorithm in ("ES256", "EdDSA"):
            with pytest.raises(ProofError, match="not a key for"):
                verified(ANN.proof("POST", URL, header={"alg": algorithm, "jwk": jwk}))


def test_a_key_that_is_known_still_verifies_each_signature() -> None:
    """Imported keys are cached; what they signed is not."""
    assert verified(ANN.proof("POST", URL)).key == ANN.jkt
    forged = Holder().proof("POST", URL, header={"jwk": ANN.jwk})
    for _ in range(2):
        with pytest.raises(ProofError, match="not signed"):
            verified(forged)
    private = ANN.proof("POST", URL, header={"jwk": ANN.private})
    with pytest.raises(ProofError, match="private key"):
        verified(private)
    assert verified(ANN.proof("POST", URL)).key == ANN.jkt


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"htm": "GET"}, "another request"),
        ({"htm": "post"}, "another request"),
        ({"htu": "https://gateway.test/oauth/tokens"}, "another request"),
        ({"htu": "https://evil.test/oauth/token"}, "another request"),
        ({"htu": "http://gateway.test/oauth/token"}, "another request"),
        ({"htu": "https://gateway.test:444/oauth/token"}, "another request"),
        ({"htu": "https://a@gateway.test/oauth/token"}, "another request"),
        ({"htu": f"{URL}?x=1"}, "without query"),
        ({"htu": f"{URL}#x"}, "without query"),
        ({"htu": "https://[x/"}, "another request"),
        ({"iat": int(time.time()) - 3600}, "iat must be"),
        ({"iat": int(time.time()) + 3600}, "iat must be"),
        ({"iat": str(int(time.time()))}, "is malformed"),
        ({"jti": ""}, "needs a jti"),
        ({"jti": "x" * 300}, "needs a jti"),
        ({"jti": 7}, "is malformed"),
        ({"nonce": "x" * 2000}, "needs a jti"),
        *(({name: None}, "is malformed") for name in ("jti", "htm", "htu", "iat")),
    ],
)
def test_a_proof_for_another_request_or_time_is_rejected(claims: Any, why: str) -> None:
    with pytest.raises(ProofError, match=why):
        verified(ANN.proof("POST", URL, **claims))


def test_equivalent_urls_match() -> None:
    for same in ("HTTPS://Gateway.test:443/oauth/token", "https://gateway.test/oauth/%74oken"):
        assert verified(ANN.proof("POST", same)).key == ANN.jkt


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "a.b.c, a.b.c", "a.b.c.d", "é.b.c", "x" * 5000])
def test_text_that_is_not_a_proof_is_rejected(text: str) -> None:
    with pytest.raises(ProofError):
        verified(text)
    with pytest.raises(ProofError):
        verified(ANN.proof("POST", URL) + text + ".")


def test_a_proof_is_for_one_token() -> None:
    assert verified(ANN.proof("POST", URL, "mine"), token="mine").key == ANN.jkt
    for other in (ANN.proof("POST", URL), ANN.proof("POST", URL, "theirs")):
        with pytest.raises(ProofError, match="another token"):
            verified(other, token="mine")


def test_too_short_and_too_costly_keys_are_rejected() -> None:
    holder = Holder("RS256")
    number = decoded(holder.jwk["n"])
    for wrong in ({"n": number[:128]}, {"n": number * 3}, {"e": b"\xff" * 256}):
        jwk = {**holder.jwk, **{name: encoded(raw) for name, raw in wrong.items()}}
        with pytest.raises(ProofError, match="not a key for RS256"):
            verified(holder.proof("POST", URL, header={"jwk": jwk}))


def test_a_proof_is_accepted_once_and_for_its_tokens_key() -> None:
    checker, proof = ProofChecker(), ANN.proof("POST", URL)
    with pytest.raises(ProofError, match="a key to which the token is not bound"):
        checker.verify(proof, "POST", URL, key=Holder().jkt)
    assert checker.verify(proof, "POST", URL, key=ANN.jkt).key == ANN.jkt
    with pytest.raises(ProofError, match="used before"):
        checker.verify(proof, "POST", URL)
    again = ANN.proof("POST", URL, jti="same"), Holder().proof("POST", URL, jti="same")
    assert len({checker.verify(each, "POST", URL).key for each in again}) == 2


def test_used_proofs_are_remembered_until_they_expire() -> None:
    now = 0.0
    spent = UsedProofs(seconds=90.0, maximum=3, clock=lambda: now)
    first = Proof("k", "1", "")
    assert spent.first(first)
    for now in (0.0, 89.0, 91.0, 179.0):
        assert not spent.first(first), now
    now = 400.0
    assert spent.first(first)
    assert all(spent.first(Proof("k", f"{number}", "")) for number in (2, 3))
    with pytest.raises(OverloadedError):
        spent.first(Proof("k", "4", ""))
    now = 600.0
    assert spent.first(Proof("k", "4", ""))


def test_a_required_nonce_must_be_ours_and_recent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checker = ProofChecker(Nonces(TokenSealer(os.urandom(32))))

    def refused(nonce: str) -> ProofError:
        with pytest.raises(ProofError) as caught:
            checker.verify(ANN.proof("POST", URL, nonce=nonce), "POST", URL)
        assert caught.value.code == "use_dpop_nonce"
        return caught.value

    fresh = refused("made-up").nonce
    refused(Nonces(TokenSealer(os.urandom(32))).fresh())
    assert checker.verify(ANN.proof("POST", URL, nonce=fresh), "POST", URL).nonce == fresh
    later = time.time() + 3600
    monkeypatch.setattr("toolbus_common.crypto.dpop.replay_check.time", lambda: later)
    with pytest.raises(ProofError, match="nonce"):
        checker.verify(ANN.proof("POST", URL, nonce=fresh, iat=later), "POST", URL)


def test_a_url_is_reduced_to_scheme_host_and_path() -> None:
    for claims in ("https://a.test/x", "https://a.test/x?y=#z", "https://a.test/x#?"):
        assert bare(claims) == "https://a.test/x"
