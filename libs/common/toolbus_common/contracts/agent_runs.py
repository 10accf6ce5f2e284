"""Runs of agent mode: calls of the built-in server whose arguments are the client's model request.

A run is a `CallRequested` with the method `AGENT_RUN`. `arguments` is the body of the client's
request, with the tools that ingress has added, and `extra` is an `AgentCall`. The response of a
streamed run is sent as notifications of the method `toolbus_common.contracts.model_calls.CHUNK`.
"""

from msgspec import Struct, field
from msgspec.json import Decoder, Encoder

AGENT_RUN = "agents/run"
AGENT = "agent"  # the target of every run at the built-in server
# The deadline of a run, in seconds from its last extension by codemode.
LEASE = 20.0


class AgentCall(Struct, frozen=True, omit_defaults=True):
    """What ingress has read from the request of a run. It is the field `extra` of the call.

    `method` is the method of the model requests. `model`, `output`, `tools` and `beta` are those of
    the request (`toolbus_common.contracts.model_calls.ModelCall`). `models` are the request's own
    restrictions of models. `names` maps the names of the tools that ingress has added to their full
    names. `sticky` selects the first target of an alias. `resumed` is the id of an earlier run that
    this call continues; empty for a new run. `cache` is the client's header `Cache-Control` as in
    `ModelCall`. `body_digest` is the digest of the client's body, before ingress added tools.
    """

    method: str
    model: str
    stream: bool = False
    output: int | None = None
    tools: int = 0
    beta: str = ""
    models: tuple[tuple[str, ...], ...] = ()
    names: dict[str, str] = field(default_factory=dict)
    sticky: str = ""
    resumed: str = ""
    cache: str = ""
    body_digest: str = ""

    def encode(self) -> str:
        """Return the form for the field `extra`."""
        return _encode(self).decode()


_encode = Encoder().encode
decode_agent_call = Decoder(AgentCall).decode
