"""DPoP key binding at the token endpoint (RFC 9449 section 5)."""

from dataclasses import dataclass

from toolbus_common.crypto.dpop.proof import HEADER, INVALID, NONCE_HEADER, ProofError
from toolbus_common.crypto.dpop.replay_check import ProofChecker
from toolbus_common.errors import OverloadedError
from toolbus_oauth.storage.records import Client
from toolbus_oauth.web.errors import OAuthError
from toolbus_oauth.web.request import Request


@dataclass(frozen=True, slots=True)
class DpopBinding:
    """Verifier of the DPoP proofs of clients; `url` is the token endpoint."""

    url: str
    checker: ProofChecker

    def key_of(self, request: Request, client: Client) -> str:
        """Return the thumbprint of the client's proved key; empty without a proof.

        Raises `OAuthError` if the proof is invalid, or missing although the client requires it.
        """
        text = request.page.headers.get(HEADER)
        if text is None:
            if client.bound:
                raise proof_required("This client requires DPoP-bound tokens")
            return ""
        try:
            return self.checker.verify(text, "POST", self.url).key
        except ProofError as error:
            nonce = ((NONCE_HEADER, error.nonce),) if error.nonce else ()
            raise OAuthError(error.code, error.message, 400, *nonce) from error
        except OverloadedError as error:
            raise OAuthError("temporarily_unavailable", error.reason, 503) from error


def proof_required(why: str) -> OAuthError:
    """Return the error for a missing DPoP proof."""
    return OAuthError(INVALID, f"{why}: send a proof in the DPoP header (RFC 9449).")
