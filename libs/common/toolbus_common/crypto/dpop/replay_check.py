"""Whether a proof is new: each is good once, and made with a nonce of ours where that is wanted."""

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from time import monotonic, time

from toolbus_common.crypto.dpop.proof import (
    EARLY_SECONDS,
    LATE_SECONDS,
    WANTS_NONCE,
    Proof,
    ProofError,
    proven,
)
from toolbus_common.crypto.sealed_tokens import Claims, TokenSealer
from toolbus_common.errors import OverloadedError

NONCE_SECONDS = 300.0
MOST_KEPT = 200_000  # proofs remembered in one span of time: some 20 MB


class Nonce(Claims, frozen=True):
    """What a server gives clients to make proofs with, good until `ends`."""

    ends: float


@dataclass(frozen=True, slots=True)
class Nonces:
    """Makes nonces and knows them again; whoever has the seal's key does, and keeps nothing."""

    seal: TokenSealer

    def fresh(self) -> str:
        """A new one."""
        return self.seal.close(Nonce(time() + NONCE_SECONDS))

    def good(self, told: str) -> bool:
        """Whether it is one of ours, and new enough."""
        found = self.seal.open(told, Nonce)
        return found is not None and time() < found.ends


@dataclass(slots=True)
class UsedProofs:
    """Proofs that were used, each remembered at least as long as it could be used again.

    They are kept in two heaps: when the newer one is old enough, it becomes the older one.
    """

    seconds: float = LATE_SECONDS + EARLY_SECONDS
    most: int = MOST_KEPT
    clock: Callable[[], float] = monotonic
    _new: set[bytes] = field(default_factory=set)
    _old: set[bytes] = field(default_factory=set)
    _turned: float = field(init=False)

    def __post_init__(self) -> None:
        """Begin."""
        self._turned = self.clock()

    def first(self, proof: Proof) -> bool:
        """Whether this is its first use. Raises `OverloadedError` when no more can be kept."""
        since = self.clock() - self._turned
        if since >= self.seconds:
            self._old = self._new if since < 2 * self.seconds else set()
            self._new, self._turned = set(), self.clock()
        used = sha256(f"{proof.key} {proof.id}".encode()).digest()
        if used in self._new or used in self._old:
            return False
        if len(self._new) >= self.most:
            raise OverloadedError("Too many proofs are being used; retry.")
        self._new.add(used)
        return True


@dataclass(frozen=True, slots=True)
class ProofChecker:
    """Judges the proofs that one process is shown; without `nonces` none is asked for."""

    nonces: Nonces | None = None
    spent: UsedProofs = field(default_factory=UsedProofs)

    def judge(self, text: str, method: str, url: str, token: str = "", key: str = "") -> Proof:
        """What a proof proves for this request; with `key` it must be of that very one.

        Raises:
            ProofError: nothing.
            OverloadedError: it cannot be remembered.

        """
        proof = proven(text, method, url, time(), token)
        if key and proof.key != key:
            raise ProofError("The DPoP proof is of another key than the token is bound to.")
        if self.nonces is not None and not self.nonces.good(proof.nonce):
            sentence = "Make the DPoP proof with the nonce of this answer's DPoP-Nonce header."
            raise ProofError(sentence, WANTS_NONCE, self.nonces.fresh())
        if not self.spent.first(proof):
            raise ProofError("This DPoP proof was used before; make one for each request.")
        return proof
