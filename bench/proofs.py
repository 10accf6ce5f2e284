"""Processor time of signed proofs, identity headers and sealed tokens (`make bench-proofs`)."""

import argparse
import gc
import os
import statistics
import sys
from collections.abc import Callable
from time import process_time_ns, time
from typing import Any

from figures import keep, load, met, row, show
from toolbus_common.crypto.dpop.client import ProofKey
from toolbus_common.crypto.dpop.proof import proven
from toolbus_common.crypto.p256 import P256Key, header_of
from toolbus_common.crypto.sealed_tokens import TokenSealer
from toolbus_executor.identity.claims import with_lifetime
from toolbus_executor.identity.keys import TYPE, Signer
from toolbus_ingress.sessions.sealed_claims import SessionClaims

URL = "https://gateway.example/mcp"
TOKEN = "t" * 600
BATCH = 20  # operations that are timed together
MAX_MICROSECONDS = {
    "verify a proof": 150.0,
    "verify the first proof of a key": 300.0,
    "create a proof": 60.0,
    "sign an identity header": 60.0,
    "seal a session": 10.0,
    "open a session": 10.0,
}


def main() -> int:
    """Run the benchmark; return 0 if the demands hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="batches of each operation")
    options = parser.parse_args()
    gc.freeze()  # as each service does: imported modules are not searched again
    rows = [
        row(f"{name}: CPU µs", _median(operation, options.rounds), "<=", MAX_MICROSECONDS[name])
        for name, operation in _operations(options.rounds * BATCH).items()
    ]
    show(rows)
    keep("proofs", {"rounds": options.rounds, "rows": rows, **load()})
    return 0 if met(rows) else 1


def _operations(count: int) -> dict[str, Callable[[int], Any]]:
    """Return each operation as a function of a number. Its inputs are created in advance."""
    key, now = ProofKey.new(), time()
    proofs = [key.proof("POST", URL, token=TOKEN) for _ in range(count)]
    strangers = [ProofKey.new().proof("POST", URL, token=TOKEN) for _ in range(count)]
    header = header_of(typ=TYPE, kid="k1")
    signer = Signer("https://g.example", P256Key.of(key.kept), header)
    claims = with_lifetime({"sub": "ann", "jti": "c" * 26}, "https://g.example", URL, int(now))
    sealer = TokenSealer(os.urandom(32))
    session = SessionClaims("s" * 26, "p" * 64, "2025-11-25", "{}", now + 3600)
    sealed = sealer.close(session)
    return {
        "verify a proof": lambda at: proven(proofs[at], "POST", URL, now, TOKEN),
        "verify the first proof of a key": lambda at: proven(
            strangers[at], "POST", URL, now, TOKEN
        ),
        "create a proof": lambda _: key.proof("POST", URL, token=TOKEN),
        "sign an identity header": lambda _: signer.signed(claims),
        "seal a session": lambda _: sealer.close(session),
        "open a session": lambda _: sealer.open(sealed, SessionClaims),
    }


def _median(operation: Callable[[int], Any], rounds: int) -> float:
    """Return the median of the batches' processor time for each operation."""
    spent = []
    for each in range(rounds):
        began = process_time_ns()
        for at in range(each * BATCH, (each + 1) * BATCH):
            operation(at)
        spent.append((process_time_ns() - began) / 1000 / BATCH)
    return statistics.median(spent)


if __name__ == "__main__":
    sys.exit(main())
