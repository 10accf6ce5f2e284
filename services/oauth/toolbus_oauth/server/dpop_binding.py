"""The key a token is to be bound to, proved at the token endpoint (DPoP, RFC 9449 section 5)."""

from dataclasses import dataclass

from toolbus_common.crypto.dpop.proof import HEADER, INVALID, NONCE_HEADER, ProofError
from toolbus_common.crypto.dpop.replay_check import ProofChecker
from toolbus_common.errors import OverloadedError
from toolbus_oauth.storage.records import Client
from toolbus_oauth.web.errors import OAuthError
from toolbus_oauth.web.request import Request


@dataclass(frozen=True, slots=True)
class Proving:
    """Judges the proofs of clients; `url` is the token endpoint's."""

    url: str
    judge: ProofChecker

    def key_of(self, request: Request, client: Client) -> str:
        """The thumbprint of the key this client holds; empty where it shows none.

        Raises `OAuthError` for a proof that is not good, or missing where the client must bring it.
        """
        text = request.asked.headers.get(HEADER)
        if text is None:
            if client.bound:
                raise unbound("This client takes bound tokens only")
            return ""
        try:
            return self.judge.judge(text, "POST", self.url).key
        except ProofError as error:
            nonce = ((NONCE_HEADER, error.nonce),) if error.nonce else ()
            raise OAuthError(error.code, error.sentence, 400, *nonce) from error
        except OverloadedError as error:
            raise OAuthError("temporarily_unavailable", error.reason, 503) from error


def unbound(why: str) -> OAuthError:
    """A request without a proof, where one is needed."""
    return OAuthError(INVALID, f"{why}: send a proof of its key as DPoP header (RFC 9449).")
