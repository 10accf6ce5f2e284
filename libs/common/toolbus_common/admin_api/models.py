"""Models of the requests and responses of the administration API."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, create_model, model_validator

from toolbus_common.config import (
    Access,
    Admin,
    ConfigModel,
    Configuration,
    Customer,
    Export,
    Group,
    Guard,
    Issuer,
    Key,
    KeyTerms,
    ModelPrice,
    ModelTarget,
    Name,
    Plugin,
    Price,
    Provider,
    Reader,
    Role,
    Rule,
    Server,
    Sink,
    Team,
    User,
    Webhook,
)

Secret = Annotated[str, Field(pattern=r"^[!-~]{24,256}$")]
SecretHash = Annotated[str, Field(pattern=r"^(?:[0-9a-f]{64})?$")]
Dollars = Annotated[float, Field(ge=0, le=1_000_000)]
AGO = r"^[0-9]{1,4}[mhdw]$"
_SECONDS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
Labels = tuple[Name, ...]
GuardNames = tuple[Name, ...]
Targets = tuple[ModelTarget, ...]

# The kinds whose entries are created, replaced and deleted by name, and the type of an entry.
KINDS: dict[str, Any] = {
    "servers": Server,
    "providers": Provider,
    "models": Targets,
    "customers": Customer,
    "teams": Team,
    "users": User,
    "groups": Group,
    "prices": Dollars | Price,
    "model_prices": ModelPrice,
    "labels": Labels,
    "guards": Guard,
    "model_guards": GuardNames,
    "plugins": Plugin,
    "rules": Rule,
    "webhooks": Webhook,
    "exports": Export,
    "sinks": Sink,
    "issuers": Issuer,
    "access": Access,
}
BY_PATTERN = (
    "prices",
    "labels",
    "models",
    "model_prices",
    "model_guards",
)  # their names contain other characters


class KeyWritten(Key):
    """A key in a whole configuration, with a secret or its hash.

    If both are missing, a secret is generated.
    """

    secret: Secret | None = Field(default=None, repr=False)
    secret_hash: SecretHash = Field(default="", repr=False)


class AdminWritten(Admin):
    """An admin key in a whole configuration, with a secret or its hash.

    If both are missing, a secret is generated.
    """

    secret: Secret | None = Field(default=None, repr=False)
    secret_hash: SecretHash = Field(default="", repr=False)


class ReaderWritten(Reader):
    """A reader in a whole configuration, with a secret or its hash."""

    secret: Secret | None = Field(default=None, repr=False)
    secret_hash: SecretHash = Field(default="", repr=False)


Written: Any = create_model(
    "Written",
    __base__=Configuration,
    __doc__="A whole configuration, as in toolbus.yaml.",
    keys=(dict[Name, KeyWritten], Field(default_factory=dict)),
    admins=(dict[Name, AdminWritten], Field(default_factory=dict)),
    readers=(dict[Name, ReaderWritten], Field(default_factory=dict)),
)


class KeyNamed(KeyTerms):
    """A key to create."""

    name: Name


class AdminNamed(ConfigModel):
    """An admin key to create. `expires` is its last day, in UTC."""

    name: Name
    role: Role
    expires: Annotated[str, Field(json_schema_extra={"format": "date"})] | None = None


class Decision(ConfigModel):
    """A note on a decision. The caller of a rejected call receives it as the reason."""

    note: str = Field(default="", max_length=512)


class ResetReason(ConfigModel):
    """The reason to clear the record of what a run has read; `flow.reset` records it."""

    reason: str = Field(min_length=1, max_length=512)


class CacheSelection(ConfigModel):
    """A selection of cached responses of models. An empty field selects all.

    `model` is the name at the provider, `key` is the API key of the request, and `entry` is the id
    in the header `x-toolbus-cache-key`.
    """

    customer: str = Field(default="", max_length=64)
    provider: str = Field(default="", max_length=64)
    model: str = Field(default="", max_length=256)
    key: str = Field(default="", max_length=256)
    entry: str = Field(default="", max_length=64)


class CachePurge(CacheSelection):
    """A selection of cached responses to remove. If it is empty, `everything` must be true."""

    everything: bool = False

    @model_validator(mode="after")
    def _selects_entries(self) -> Self:
        if not any(self.model_dump().values()):
            raise ValueError(
                "selects no entries; set customer, provider, model, key or entry, or set "
                "'everything' to true"
            )
        return self


class ExplainedCall(ConfigModel):
    """A call to explain. Nothing is called, reserved or recorded.

    `name` is a tool as clients know it (`server__tool`), an alias of a model, or `provider/model`.
    `arguments` are those of the tool, or the body of the model request.
    """

    name: str = Field(min_length=1, max_length=512)
    arguments: dict[str, Any] = Field(default_factory=dict)


class CoverageSelection(ConfigModel):
    """The calls whose checks by guards are compared with the configuration.

    `since` is a time before now, such as `24h`. `tool` is a pattern of tools or models. With
    `gaps`, only shares with a gap are returned.
    """

    since: Annotated[str, Field(pattern=AGO)] = "24h"
    key: str = Field(default="", max_length=256)
    tool: str = Field(default="", max_length=400)
    gaps: bool = False

    @property
    def seconds(self) -> int:
        """`since` in seconds."""
        return seconds_of(self.since)


def seconds_of(ago: str) -> int:
    """Return a time before now, such as `24h`, in seconds."""
    return int(ago[:-1]) * _SECONDS[ago[-1]]


class ResponseModel(BaseModel):
    """Base class of responses. Later versions add fields."""


class LocatedProblem(ResponseModel):
    """An error or warning about the value at `location`. `line` is set only for YAML text."""

    location: str
    line: int = 0
    reason: str


class CallerResponse(ResponseModel):
    """The name, role and rights of the administrator that sent the request."""

    name: str
    role: Role
    rights: list[str]


class SecretResponse(ResponseModel):
    """A new secret. The API returns it only once."""

    name: str
    secret: str


State = Literal["live", "revoked", "expired", "no secret"]
Origin = Literal["configuration", "command"]


class KeyResponse(ResponseModel):
    """The current state of a key.

    `origin` is its source: the configuration, or a single command.
    """

    name: str
    state: State
    origin: Origin
    value: KeyTerms


class KeysResponse(ResponseModel):
    """One page of keys. `next` is the position of the next page."""

    items: list[KeyResponse]
    next: str | None = None
    revision: int


class AdminResponse(ResponseModel):
    """The current state of an admin key."""

    name: str
    state: State
    origin: Origin
    role: Role
    expires: str | None = None


class AdminsResponse(ResponseModel):
    """One page of admin keys."""

    items: list[AdminResponse]
    next: str | None = None
    revision: int


class Revoked(ResponseModel):
    """Confirmation that the key is revoked."""

    name: str
    state: Literal["revoked"] = "revoked"


class CoverageShare(ResponseModel):
    """What one guard checked of the calls of one key to one tool, in one phase.

    `missing` counts calls without a check that the guard must have made, and `failed` counts failed
    checks: both are gaps. `exempt` counts calls that needed no check, because an earlier
    configuration decided them. `attached_by` are the levels and entries that attach the guard.
    """

    customer: str
    key: str
    tool: str
    phase: str
    guard: str
    attached_by: list[str]
    calls: int
    checked: int
    percent: float
    missing: int
    failed: int
    exempt: int
    bytes: int
    checked_bytes: int
    call_ids: list[str]


class UnguardedCalls(ResponseModel):
    """The calls of one key to one tool, to which no guard applies."""

    customer: str
    key: str
    tool: str
    calls: int


class CoverageResponse(ResponseModel):
    """One page of the coverage of guards; `next` is the position of the next page.

    `gaps` counts the shares with a gap, on all pages. `without_guards` has at most 1000 entries.
    `unknown_keys` have calls, but are not configured any more. Without `complete`, calls were left
    out: choose a shorter time.
    """

    items: list[CoverageShare]
    next: str | None = None
    gaps: int
    without_guards: list[UnguardedCalls]
    unknown_keys: list[str]
    complete: bool
    revision: int


class ChangeResponse(ResponseModel):
    """One changed entry. `sign` is `+` (added), `-` (removed) or `~` (changed)."""

    sign: Literal["+", "-", "~"]
    kind: str
    name: str
    text: str


class AppliedResponse(ResponseModel):
    """The changes of an applied configuration, or of a dry run.

    `secrets` contains the generated secrets. The API returns them only once.
    """

    applied: bool
    revision: int
    changes: list[ChangeResponse]
    secrets: dict[str, str] = Field(default_factory=dict, repr=False)
    warnings: list[LocatedProblem] = []


class ConfigurationResponse(ResponseModel):
    """The whole configuration without secrets. Applying it unchanged has no effect."""

    revision: int
    configuration: Configuration


class Welcome(ResponseModel):
    """The addresses of the OpenAPI document and of its documentation."""

    openapi: str
    documentation: str


def noun_of(kind: str) -> str:
    """Return the singular of a kind, such as `key` for `keys`."""
    return kind if kind.endswith("ss") else kind.removesuffix("s")


def _entry(kind: str, value: Any) -> tuple[type[ResponseModel], type[ResponseModel]]:
    noun = noun_of(kind).capitalize()
    entry = create_model(
        f"{noun}Entry",
        __base__=ResponseModel,
        __doc__=f"One of the {kind}.",
        name=(str, ...),
        value=(value, ...),
        revision=(int, ...),
    )
    item = create_model(f"{noun}Item", __base__=ResponseModel, name=(str, ...), value=(value, ...))
    page = create_model(
        f"{noun}Page",
        __base__=ResponseModel,
        __doc__=f"One page of the {kind}; `next` is the position of the next page.",
        items=(list[item], ...),
        next=(str | None, None),
        revision=(int, ...),
    )
    return entry, page


ENTRIES = {kind: _entry(kind, value) for kind, value in KINDS.items()}
