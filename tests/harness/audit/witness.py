"""Independent witness over HTTP, according to C2SP tlog-witness and RFC 9162."""

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from time import time

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from harness.network.json_server import Request, Response, answering


def key_id(name: str, algorithm: int, public: bytes) -> bytes:
    """Return the key id in the form that C2SP signed-note recommends."""
    return sha256(f"{name}\n".encode() + bytes([algorithm]) + public).digest()[:4]


@dataclass
class Witness:
    """The witness, with the last cosigned checkpoint of each log.

    `broken` is a status to return.
    """

    name: str = "witness.example/w1"
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    logs: dict[str, str] = field(default_factory=dict)  # verifier key of each log, by origin
    trees: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    # Old size, and the status of the response.
    requests: list[tuple[int, int]] = field(default_factory=list)
    broken: int = 0

    @property
    def verifier(self) -> str:
        """The verifier key for auditors and logs."""
        public = self.key.public_key().public_bytes_raw()
        encoded = base64.b64encode(b"\x04" + public).decode()
        return f"{self.name}+{key_id(self.name, 4, public).hex()}+{encoded}"

    def cosign(self, text: str, at: int) -> str:
        """Return the signature line of tlog-cosignature for the text of a checkpoint."""
        public = self.key.public_key().public_bytes_raw()
        signature = self.key.sign(f"cosignature/v1\ntime {at}\n{text}".encode())
        data = key_id(self.name, 4, public) + at.to_bytes(8, "big") + signature
        return f"\u2014 {self.name} {base64.b64encode(data).decode()}\n"

    @contextmanager
    def listening(self, port: int = 0) -> Iterator[str]:
        """Serve until the context ends. Return the submission prefix."""
        with answering(self._answer, port) as own:
            yield f"http://127.0.0.1:{own}/w1"

    def _answer(self, request: Request) -> Response:
        if self.broken:
            return Response(self.broken)
        if (request.method, request.path) != ("POST", "/w1/add-checkpoint"):
            return Response(405)
        old, answer = self._judged(request.body.decode())
        self.requests.append((old, answer.status))
        return answer

    def _judged(self, body: str) -> tuple[int, Response]:
        head, _, note = body.partition("\n\n")
        old_line, *proof = head.split("\n")
        old = int(old_line.removeprefix("old "))
        text, _, signatures = note.rpartition("\n\n")
        text += "\n"
        origin, size_line, root_line, *extensions = text.removesuffix("\n").split("\n")
        assert all(extensions), "an extension line must not be empty"
        if origin not in self.logs:
            return old, Response(404)
        if not signed(text, signatures, self.logs[origin]):
            return old, Response(403)
        size, root = int(size_line), base64.b64decode(root_line, validate=True)
        if old > size or len(proof) > 63:
            return old, Response(400)
        known, known_root = self.trees.get(origin, (0, b""))
        if old != known or (old == size and root != known_root):
            return old, Response(409, f"{known}\n".encode(), {"content-type": "text/x.tlog.size"})
        nodes = [base64.b64decode(each, validate=True) for each in proof]
        if not consistent(old, known_root, size, root, nodes):
            return old, Response(422)
        self.trees[origin] = size, root
        return old, Response(200, self.cosign(text, int(time())).encode())


def signed(text: str, signatures: str, verifier: str) -> bool:
    """Return whether the log made one of the signature lines."""
    name, _, encoded = verifier.split("+", 2)
    public = base64.b64decode(encoded)[1:]
    for line in signatures.splitlines():
        dash, signer, data = line.split(" ")
        raw = base64.b64decode(data)
        if (dash, signer, raw[:4]) == ("\u2014", name, key_id(name, 1, public)):
            try:
                Ed25519PublicKey.from_public_bytes(public).verify(raw[4:], text.encode())
            except InvalidSignature:
                return False
            return True
    return False


def consistent(first: int, first_root: bytes, second: int, root: bytes, path: list[bytes]) -> bool:
    """Check a consistency proof according to RFC 9162 section 2.1.4.2."""
    if first in (0, second):
        return not path and (not first or first_root == root)
    nodes = list(path)
    if not nodes:
        return False
    if first & (first - 1) == 0:
        nodes.insert(0, first_root)
    fn, sn = first - 1, second - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = nodes[0]
    for node in nodes[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            fr = sha256(b"\x01" + node + fr).digest()
            sr = sha256(b"\x01" + node + sr).digest()
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = sha256(b"\x01" + sr + node).digest()
        fn, sn = fn >> 1, sn >> 1
    return (fr, sr, sn) == (first_root, root, 0)
