"""Replay check of DPoP proofs: each proof is valid once, with a server nonce if required."""

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
MAX_PROOFS = 200_000  # proofs stored per generation: about 20 MB


class Nonce(Claims, frozen=True):
    """A server nonce, valid until `ends`."""

    ends: float


@dataclass(frozen=True, slots=True)
class Nonces:
    """Creates and verifies nonces without stored state.

    A nonce is valid in every replica that has the same key.
    """

    seal: TokenSealer

    def fresh(self) -> str:
        """Return a new nonce."""
        return self.seal.close(Nonce(time() + NONCE_SECONDS))

    def good(self, value: str) -> bool:
        """Return whether a nonce was created with this key and has not expired."""
        found = self.seal.open(value, Nonce)
        return found is not None and time() < found.ends


@dataclass(slots=True)
class UsedProofs:
    """Used proofs. Each is stored at least as long as it is valid.

    The proofs are stored in two generations. After `seconds`, the older generation is dropped, and
    the newer generation becomes the older one.
    """

    seconds: float = LATE_SECONDS + EARLY_SECONDS
    maximum: int = MAX_PROOFS
    clock: Callable[[], float] = monotonic
    _new: set[bytes] = field(default_factory=set)
    _old: set[bytes] = field(default_factory=set)
    _rotated: float = field(init=False)

    def __post_init__(self) -> None:
        """Start the first generation."""
        self._rotated = self.clock()

    def first(self, proof: Proof) -> bool:
        """Store a proof as used, and return whether this is its first use.

        Raises `OverloadedError` if no more proofs can be stored.
        """
        since = self.clock() - self._rotated
        if since >= self.seconds:
            self._old = self._new if since < 2 * self.seconds else set()
            self._new, self._rotated = set(), self.clock()
        used = sha256(f"{proof.key} {proof.id}".encode()).digest()
        if used in self._new or used in self._old:
            return False
        if len(self._new) >= self.maximum:
            raise OverloadedError("Too many DPoP proofs were used recently; retry later.")
        self._new.add(used)
        return True


@dataclass(frozen=True, slots=True)
class ProofChecker:
    """Verifies the proofs that one process receives. Without `nonces`, no nonce is required."""

    nonces: Nonces | None = None
    spent: UsedProofs = field(default_factory=UsedProofs)

    def verify(self, text: str, method: str, url: str, token: str = "", key: str = "") -> Proof:
        """Return the verified proof for this request. If `key` is set, it must be the signing key.

        Raises:
            ProofError: the proof is invalid.
            OverloadedError: too many proofs were used recently.

        """
        proof = proven(text, method, url, time(), token)
        if key and proof.key != key:
            raise ProofError(
                "The DPoP proof is signed with a key to which the token is not bound; use its key."
            )
        if self.nonces is not None and not self.nonces.good(proof.nonce):
            message = "Create the DPoP proof with the nonce in this response's DPoP-Nonce header."
            raise ProofError(message, WANTS_NONCE, self.nonces.fresh())
        if not self.spent.first(proof):
            raise ProofError("This DPoP proof was used before; create one for each request.")
        return proof
