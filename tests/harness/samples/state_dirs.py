"""State directory with files of each part of a backup, as a stopped installation has them."""

import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_p256
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

SECRET = b"\x01secret bytes of a key\x02 0123456789"


def sample_state(root: Path) -> dict[str, bytes]:
    """Create the directory; return the files that a backup must have, by path."""
    kept = {
        "clickhouse/store/680/one/data.bin": os.urandom(300_000),
        "clickhouse/store/680/one/a name of more than a hundred characters " + "x" * 90: b"long",
        "clickhouse/metadata/toolbus.sql": b"ATTACH DATABASE toolbus",
        "nats/store/jetstream/TOOLBUS/streams/EVENTS/1.blk": b"event " * 50_000,
        "valkey/appendonlydir/appendonly.aof.manifest": b"file appendonly.aof.1",
        "valkey/password": SECRET,
        "spool/policy.events.0": b"",
        "evidence/default.jsonl": b'{"size": 1}\n',
        "evidence/key.pem": SECRET,
        "nkeys/operator.seed": SECRET,
        "people.key": SECRET,
        "encryption/writers.json": SECRET,
        "a-file-of-a-later-version": SECRET,
    }
    dropped = {"caches/npm/package": b"x", "lock": b"", "run.json": b"{}", "nats/nats.conf": b"{}"}
    for name, data in {**kept, **dropped}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (root / "clickhouse/metadata/toolbus").symlink_to("../store/680/one")
    hard = "clickhouse/store/680/one/hard.bin"
    os.link(root / "clickhouse/store/680/one/data.bin", root / hard)
    return {**kept, hard: kept["clickhouse/store/680/one/data.bin"]}


def key_files(directory: Path, kind: str = "x25519") -> tuple[Path, Path]:
    """Write a new key pair in PEM form; return the files of the private and the public key."""
    key = X25519PrivateKey.generate() if kind == "x25519" else generate_p256(SECP256R1())
    private, public = directory / f"{kind}.key", directory / f"{kind}.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public
