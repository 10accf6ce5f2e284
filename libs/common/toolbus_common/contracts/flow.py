"""What a run has read: in messages, in events and in the bucket `tb_flow`."""

import msgspec


class FlowRead(msgspec.Struct, frozen=True, omit_defaults=True):
    """The first call of a run that read content of one kind. `at` is seconds since the epoch."""

    call: str
    server: str
    tool: str
    at: float


class FlowState(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a run has read: the first call that read private data, and the first untrusted one."""

    private: FlowRead | None = None
    untrusted: FlowRead | None = None

    @property
    def chain(self) -> tuple[FlowRead, ...]:
        """The calls that read private or untrusted data, in their order."""
        found = [each for each in (self.private, self.untrusted) if each is not None]
        return tuple(dict.fromkeys(sorted(found, key=lambda each: each.at)))


class FlowRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """The field `flow` of the events of a decision.

    `run` identifies the run. `private` and `untrusted` are the ids of the calls of the run that
    first read private and untrusted content, before this call; empty if none did. `verdict` is
    `passed`, `flagged`, `asked` or `refused`. `chain` are these calls as `server__tool`, in their
    order. `narrowed` is set if the call belongs to a program and was decided by what can reach its
    arguments.
    """

    run: str
    verdict: str = "passed"
    private: str = ""
    untrusted: str = ""
    chain: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    writes: str = ""
    narrowed: bool = False


class FlowInputs(msgspec.Struct, frozen=True, omit_defaults=True):
    """The field `flow` of a call that codemode makes for a program or for a run of agent mode.

    `sealed` is the field `flow` of the admitted call `parent`. `inputs` are the full names of the
    tools whose results can reach the arguments of this call, or decide whether it is made; None if
    they are not known. `earlier` are runs of agent mode whose results this run has received.
    """

    sealed: str
    parent: str
    inputs: tuple[str, ...] | None = None
    earlier: tuple[str, ...] = ()


encode = msgspec.json.Encoder().encode
decode_record = msgspec.json.Decoder(FlowRecord).decode
decode_inputs = msgspec.json.Decoder(FlowInputs).decode
