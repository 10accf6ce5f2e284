"""The stored state of a run: metadata in plain text, and content encrypted for the caller."""

from base64 import b64decode, b64encode
from enum import StrEnum
from hashlib import sha256

import msgspec
from msgspec import Struct, field

from toolbus_codemode.agent.dialects.base import Turn
from toolbus_codemode.agent.limits import Used
from toolbus_common.contracts import AgentRunState
from toolbus_common.crypto.aead import Aead, DecryptionError, derived_key
from toolbus_common.errors import UnavailableError
from toolbus_common.observability.trace_context import trace_id

MAX_STEPS = 500  # that a record shows; older ones are dropped
LARGEST_CONTENT = 6 << 20  # bytes
LONGEST_REASON = 1000  # characters


class State(StrEnum):
    """The state of a run. `PENDING` means that its last calls are the client's."""

    RUNNING = "running"
    WAITING = "waiting"  # for an approval
    COMPLETED = "completed"
    PENDING = "pending"
    LIMITED = "limited"
    FAILED = "failed"
    INTERRUPTED = "interrupted"  # the client disconnected, or the service stopped
    CANCELLED = "cancelled"


# A run in one of these states cannot be continued.
CLOSED = frozenset({State.CANCELLED})


class Step(Struct):
    """One call of a run, without content. `state` is `running`, `done`, `failed` or `unknown`.

    `waiting` means that the call waits for an approval.
    """

    kind: str
    name: str
    call_id: str
    at: float
    state: str = "running"
    code: str = ""
    waiting: bool = False


class Content(Struct):
    """The part of a run that is encrypted: its turns, and what counts against its limits."""

    turns: list[Turn] = field(default_factory=list)
    used: Used = field(default_factory=Used)


class RunRecord(Struct):
    """One run. `call` is the call of the request that the run belongs to now.

    `principal` is the owner's id, and `body` is the digest of the request. `trace` is the trace of
    all calls. Times are in seconds since the epoch.
    """

    run: str
    principal: str
    customer: str
    key: str
    method: str
    model: str
    call: str
    body: str
    trace: str
    started: float
    updated: float
    state: State = State.RUNNING
    code: str = ""
    reason: str = ""
    approval: str = ""
    turns: int = 0
    calls: int = 0
    cost: int = 0
    tokens: int = 0
    steps: list[Step] = field(default_factory=list)
    sealed: str = ""

    def encode(self) -> bytes:
        """Return the stored form of the metadata. The content is stored in a separate entry."""
        return _encode(msgspec.structs.replace(self, sealed=""))

    def seal(self, content: Content, key_digest: str) -> None:
        """Encrypt the content with a key that only the caller's requests contain."""
        used = content.used
        self.turns, self.calls, self.cost = used.turns, used.calls, used.cost
        self.tokens = used.tokens
        del self.steps[:-MAX_STEPS]
        text = _encode(content)
        self.sealed = b64encode(_aead(key_digest).seal(text, self.run.encode())).decode()

    def open(self, key_digest: str) -> Content:
        """Decrypt the content. Raises `UnavailableError` if another credential has sealed it."""
        if not self.sealed:
            return Content()
        try:
            text = _aead(key_digest).open(b64decode(self.sealed), self.run.encode())
        except DecryptionError as error:
            raise UnavailableError(
                f"The content of run '{self.run}' was encrypted for another credential, such as an "
                "earlier access token, so it cannot be continued. Start a new run."
            ) from error
        return _decode_content(text)

    @property
    def trace_id(self) -> str:
        """The trace of all calls."""
        return trace_id(self.trace)

    def shown(self, *, whole: bool) -> AgentRunState:
        """Return the run for people, without content; `whole` includes its steps."""
        fields = msgspec.to_builtins(self)
        if not whole:
            fields["steps"] = ()
        return AgentRunState(**fields, trace_id=self.trace_id)


def decode_record(data: bytes) -> RunRecord:
    """Parse the stored form. Raises `msgspec.MsgspecError`."""
    return _decode_record(data)


def entry_name(principal: str, run: str) -> str:
    """Return the name of a run's entry, which begins with its owner."""
    return f"{owner_of(principal)}.{run}"


def content_name(principal: str, run: str) -> str:
    """Return the name of the entry with a run's content."""
    return f"{entry_name(principal, run)}.content"


def owner_of(principal: str) -> str:
    """Return the first part of the names of a principal's entries."""
    return sha256(f"owner of runs {principal}".encode()).hexdigest()[:24]


def digest_of_body(method: str, body: bytes) -> str:
    """Return the digest by which a repeated request is recognized."""
    return sha256(method.encode() + b"\0" + body).hexdigest()


def _aead(key_digest: str) -> Aead:
    return Aead(derived_key(key_digest.encode(), b"toolbus agent run"))


_encode = msgspec.json.Encoder().encode
_decode_record = msgspec.json.Decoder(RunRecord).decode
_decode_content = msgspec.json.Decoder(Content).decode
