"""Retention of events, and publication of the signed checkpoints over them."""

import re
from base64 import b64decode
from hashlib import sha256
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, Field, field_validator

from toolbus_common.config.audit.exports import Place
from toolbus_common.config.base import ConfigModel, Name

SHORTEST = 183  # days: half a year, which the EU's AI Act requires of deployers (Art. 26(6))
USUAL = 400
_COSIGNATURE, _KEY_BYTES = b"\x04", 33  # algorithm number; bytes of number and public key
_DAYS = re.compile(r"(\d{1,5})d")


def _days(value: Any) -> Any:
    """Return 400 for `400d`. Any other value is returned unchanged for pydantic to validate."""
    found = _DAYS.fullmatch(value) if isinstance(value, str) else None
    return int(found[1]) if found else value


Retention = Annotated[int, Field(ge=SHORTEST, le=36_500), BeforeValidator(_days)]


class Audit(ConfigModel):
    """`retention` is the storage time of events (`400d`), unless their customer overrides it."""

    retention: Retention = USUAL


class Witness(ConfigModel):
    """A witness (C2SP tlog-witness) that cosigns checkpoints at `url`/add-checkpoint.

    `key` is its verifier key for Ed25519 cosignatures: name+id+base64, type 4.
    """

    name: Name
    url: str = Field(max_length=1024)
    key: str = Field(max_length=1024)

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        if not re.fullmatch(r"https?://[^/\s?#]+[^\s?#]*", url):
            raise ValueError("must be https://host/prefix, or http:// of a private network")
        return url.rstrip("/")

    @field_validator("key")
    @classmethod
    def _is_a_verifier(cls, key: str) -> str:
        cosigner_of(key)
        return key


class Cosigner(NamedTuple):
    """A cosigner: its name and id in signature lines, and its public key."""

    name: str
    id: bytes
    public: bytes


def cosigner_of(key: str) -> Cosigner:
    """Return the cosigner of a verifier key. Raises `ValueError` for an invalid key."""
    name, _, rest = key.partition("+")
    key_id, _, encoded = rest.partition("+")
    try:
        data = b64decode(encoded, validate=True)
    except ValueError:
        data = b""
    known = sha256(name.encode() + b"\n" + data).digest()[:4]
    if not re.fullmatch(r"[^\s+]+", name) or known.hex() != key_id:
        raise ValueError("must be a verifier key as the witness prints it: name+id+base64")
    if data[:1] != _COSIGNATURE or len(data) != _KEY_BYTES:
        raise ValueError("must be an Ed25519 cosignature key (type 4); no other is supported")
    return Cosigner(name, known, data[1:])


class Checkpoints(Place):
    """A target for the newest checkpoint of each customer, one file per customer."""

    every: str = Field(default="1m", pattern=r"^[1-9][0-9]{0,3}[smhd]$")


class Evidence(ConfigModel):
    """The publication of checkpoints. `origin` names this installation in all signatures.

    The first start of audit fixes `origin`; it cannot be changed afterwards.
    """

    origin: str = Field(
        default="", max_length=128, pattern=r"^(?:[a-z0-9][a-z0-9._-]*(?:/[a-z0-9._-]+)*)?$"
    )
    witnesses: tuple[Witness, ...] = Field(default=(), max_length=16)
    checkpoints: Checkpoints | None = None

    @field_validator("witnesses")
    @classmethod
    def _have_names(cls, witnesses: tuple[Witness, ...]) -> tuple[Witness, ...]:
        if len({each.name for each in witnesses}) < len(witnesses):
            raise ValueError("must have distinct names; rename one")
        return witnesses
