"""Bound tokens at the edge: with a proof for this request, and in no other way."""

import json
import os
from time import time
from typing import Any

import pytest

from harness.builders.configurations import configuration_change
from harness.oauth.dpop_proofs import Holder
from toolbus_common.access.config_snapshot import ConfigView, hash_of, key_digest_of
from toolbus_common.config import Configuration
from toolbus_common.contracts import Bearer
from toolbus_common.crypto.dpop.replay_check import Nonces, ProofChecker
from toolbus_common.crypto.sealed_tokens import TokenSealer
from toolbus_common.errors import UnauthorizedError
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_ingress.auth.dpop import DPoPVerifier, InvalidProofError, challenge_headers
from toolbus_ingress.auth.protected_resource import ProtectedResource, token_of

BASE = "https://gateway.test"
TOKEN, PLAIN = "eyJb.eyJp.c2ln", "eyJw.eyJp.c2ln"
URL = f"{BASE}/mcp"
ANN = Holder()
WHERE = b', resource_metadata="x"'


def edge(checker: ProofChecker | None = None, **rule: Any) -> ProtectedResource:
    """Return an edge that knows a bound and an unbound token of ann."""
    directory = ConfigView()
    made = Configuration.model_validate({"access": {"staff": {"tools": ["*"], **rule}}})
    directory.projection.apply_change(configuration_change(made))
    directory.projection.apply_change(None)
    for token, jkt in ((TOKEN, ANN.jkt), (PLAIN, "")):
        bearer = Bearer(
            access="staff", user="ann", client="c", resource=URL, ends=time() + 600, jkt=jkt
        )
        directory.bearers.take(hash_of(key_digest_of(token)), bearer)
    requests = RequestReply("ingress", Bus("ingress", "nats://127.0.0.1:9"))
    return ProtectedResource(directory, requests, DPoPVerifier(BASE, checker or ProofChecker()))


def shown(
    identity: ProtectedResource,
    scheme: str,
    token: str,
    proof: str | None = None,
    method: str = "POST",
) -> str:
    headers = {b"authorization": f"{scheme} {token}".encode()}
    headers |= {} if proof is None else {b"dpop": proof.encode()}
    return identity.holder_of(key_digest_of(token), "", headers, {"method": method, "path": "/mcp"})


def refused(*challenge: Any) -> InvalidProofError:
    with pytest.raises(InvalidProofError) as caught:
        shown(*challenge)
    return caught.value


def test_a_bound_token_is_accepted_once_with_a_proof_for_this_request() -> None:
    identity, proof = edge(), ANN.proof("POST", URL, TOKEN)
    assert shown(identity, "DPoP", TOKEN, proof)
    assert "used before" in refused(identity, "dpop", TOKEN, proof).reason
    stream = ANN.proof("GET", URL, TOKEN)
    assert shown(identity, "DPoP", TOKEN, stream, "GET")


@pytest.mark.parametrize(
    "proof",
    [
        None,
        "",
        Holder().proof("POST", URL, TOKEN),
        ANN.proof("POST", URL),
        ANN.proof("POST", URL, PLAIN),
        ANN.proof("GET", URL, TOKEN),
        ANN.proof("POST", f"{URL}/docs", TOKEN),
        ANN.proof("POST", "https://evil.test/mcp", TOKEN),
    ],
    ids=["none", "empty", "another's", "no token", "other token", "GET", "elsewhere", "evil"],
)
def test_a_bound_token_without_a_valid_proof_is_rejected(proof: str | None) -> None:
    assert refused(edge(), "DPoP", TOKEN, proof).error == "invalid_dpop_proof"


def test_bound_and_bearer_tokens_are_not_interchangeable() -> None:
    identity = edge()
    proof = ANN.proof("POST", URL, TOKEN)
    assert refused(identity, "Bearer", TOKEN).error == "invalid_token"
    assert refused(identity, "Bearer", TOKEN, proof).error == "invalid_token"
    assert refused(identity, "DPoP", PLAIN, ANN.proof("POST", URL, PLAIN)).error == "invalid_token"
    assert shown(identity, "Bearer", PLAIN)


def test_a_rule_that_requires_bound_tokens_rejects_bearer_tokens() -> None:
    identity = edge(dpop=True)
    assert "only bound access tokens" in refused(identity, "Bearer", PLAIN).reason
    assert shown(identity, "DPoP", TOKEN, ANN.proof("POST", URL, TOKEN))


def test_a_required_nonce_is_sent_in_the_challenge() -> None:
    identity = edge(ProofChecker(Nonces(TokenSealer(os.urandom(32)))))
    first = refused(identity, "DPoP", TOKEN, ANN.proof("POST", URL, TOKEN))
    assert first.error == "use_dpop_nonce"
    challenge = dict(challenge_headers(first, WHERE, b"DPoP"))
    assert b'error="use_dpop_nonce"' in challenge[b"www-authenticate"]
    nonce = challenge[b"dpop-nonce"].decode()
    assert shown(identity, "DPoP", TOKEN, ANN.proof("POST", URL, TOKEN, nonce=nonce))


async def test_a_page_rejects_a_bound_token() -> None:
    identity = edge()
    assert await identity.form_key_digest(PLAIN) == key_digest_of(PLAIN)
    assert await identity.form_key_digest("tbk_a_key") == key_digest_of("tbk_a_key")
    with pytest.raises(InvalidProofError, match="form cannot contain"):
        await identity.form_key_digest(TOKEN)
    wanting = edge(dpop=True)
    with pytest.raises(InvalidProofError, match="form cannot contain"):
        await wanting.form_key_digest(PLAIN)


def test_a_challenge_names_the_used_scheme_and_with_sign_in_both() -> None:
    def challenge(error: UnauthorizedError, where: bytes, shown: bytes) -> str:
        return dict(challenge_headers(error, where, shown))[b"www-authenticate"].decode()

    plain, unproven = UnauthorizedError("No."), InvalidProofError("No.")
    algs = 'algs="ES256 EdDSA RS256"'
    assert challenge(plain, b"", b"") == 'Bearer realm="toolbus"'
    assert challenge(plain, b"", b"Bearer") == 'Bearer realm="toolbus", error="invalid_token"'
    assert challenge(plain, WHERE, b"") == f'Bearer realm="toolbus"{WHERE.decode()}, DPoP {algs}'
    assert challenge(plain, b"", b"dpop") == f'DPoP realm="toolbus", {algs}, error="invalid_token"'
    assert challenge(unproven, WHERE, b"DPoP") == (
        f'DPoP realm="toolbus", {algs}, error="invalid_dpop_proof"{WHERE.decode()}'
    )


def test_a_token_is_found_in_either_scheme() -> None:
    for scheme, found in (("Bearer", TOKEN), ("DPoP", TOKEN), ("Basic", "")):
        assert token_of({b"authorization": f"{scheme} {TOKEN}".encode()}) == found


@pytest.mark.parametrize("needed", [True, False])
def test_the_metadata_names_the_accepted_proofs_and_whether_they_are_required(
    *, needed: bool
) -> None:
    path = "/.well-known/oauth-protected-resource/mcp"
    answer = edge(dpop=needed).metadata_response({"path": path, "method": "GET"})
    assert answer is not None
    document = json.loads(answer.body)
    assert document["dpop_signing_alg_values_supported"] == ["ES256", "EdDSA", "RS256"]
    assert document["dpop_bound_access_tokens_required"] is needed
