"""What is sent to the administration and what it answers: the models requests are read with."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, create_model

from toolbus_common.config import (
    Access,
    Admin,
    ConfigModel,
    Configuration,
    Customer,
    Export,
    Group,
    Issuer,
    Key,
    KeyTerms,
    Name,
    Price,
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
Labels = tuple[Name, ...]

# The kinds whose entries are made, replaced and deleted by name, and what an entry is.
KINDS: dict[str, Any] = {
    "servers": Server,
    "customers": Customer,
    "teams": Team,
    "users": User,
    "groups": Group,
    "prices": Dollars | Price,
    "labels": Labels,
    "rules": Rule,
    "webhooks": Webhook,
    "exports": Export,
    "sinks": Sink,
    "issuers": Issuer,
    "access": Access,
}
BY_PATTERN = ("prices", "labels")  # named by patterns over tools


class KeyWritten(Key):
    """A key in a whole configuration: with a secret, or its hash, or neither: one is made."""

    secret: Secret | None = Field(default=None, repr=False)
    secret_hash: SecretHash = Field(default="", repr=False)


class AdminWritten(Admin):
    """An admin key in a whole configuration, likewise."""

    secret: Secret | None = Field(default=None, repr=False)
    secret_hash: SecretHash = Field(default="", repr=False)


class ReaderWritten(Reader):
    """A reader in a whole configuration, with a secret or its hash."""

    secret: Secret | None = Field(default=None, repr=False)
    secret_hash: SecretHash = Field(default="", repr=False)


Written: Any = create_model(
    "Written",
    __base__=Configuration,
    __doc__="A whole configuration, as toolbus.yaml has it.",
    keys=(dict[Name, KeyWritten], Field(default_factory=dict)),
    admins=(dict[Name, AdminWritten], Field(default_factory=dict)),
    readers=(dict[Name, ReaderWritten], Field(default_factory=dict)),
)


class KeyNamed(KeyTerms):
    """A key to be made."""

    name: Name


class AdminNamed(ConfigModel):
    """An admin key to be made. `expires` is its last day, in UTC."""

    name: Name
    role: Role
    expires: Annotated[str, Field(json_schema_extra={"format": "date"})] | None = None


class Decision(ConfigModel):
    """A note on a decision; the reason, where it is a no."""

    note: str = Field(default="", max_length=512)


class ResponseModel(BaseModel):
    """An answer. Later versions add fields."""


class ProblemResponse(ResponseModel):
    """What is wrong at one place; `line` is there where a text was sent."""

    place: str
    line: int = 0
    reason: str


class ErrorResponse(ResponseModel):
    """Why not, and what to do."""

    code: str
    reason: str
    mend: str
    retryable: bool = False
    faults: list[ProblemResponse] = []


class Failure(ResponseModel):
    """Every answer that is no success."""

    error: ErrorResponse


class CallerResponse(ResponseModel):
    """Who asks, and what they may."""

    name: str
    role: Role
    rights: list[str]


class SecretResponse(ResponseModel):
    """A secret, told here and never again."""

    name: str
    secret: str


State = Literal["live", "revoked", "expired", "no secret"]
Origin = Literal["declaration", "command"]


class KeyResponse(ResponseModel):
    """A key as it counts now. `origin`: whether it is declared or was made one by one."""

    name: str
    state: State
    origin: Origin
    value: KeyTerms


class KeysResponse(ResponseModel):
    """One page of keys; `next` is where the next begins."""

    items: list[KeyResponse]
    next: str | None = None
    revision: int


class AdminResponse(ResponseModel):
    """An admin key as it counts now."""

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
    """It opens nothing any more."""

    name: str
    state: Literal["revoked"] = "revoked"


class ChangeResponse(ResponseModel):
    """One entry that differs: `+` is new, `-` is gone, `~` differs."""

    sign: Literal["+", "-", "~"]
    kind: str
    name: str
    said: str


class AppliedResponse(ResponseModel):
    """What applying changed, or would change. `secrets` are those it made, told once."""

    applied: bool
    revision: int
    changes: list[ChangeResponse]
    secrets: dict[str, str] = Field(default_factory=dict, repr=False)
    warnings: list[ProblemResponse] = []


class ConfigurationResponse(ResponseModel):
    """The whole configuration as it may be shown; applied again, it changes nothing."""

    revision: int
    declaration: Configuration


class Welcome(ResponseModel):
    """Where the API is described."""

    openapi: str
    documentation: str


def noun_of(kind: str) -> str:
    """What one of a kind is called."""
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
        __doc__=f"One page of the {kind}; `next` is where the next begins.",
        items=(list[item], ...),
        next=(str | None, None),
        revision=(int, ...),
    )
    return entry, page


ENTRIES = {kind: _entry(kind, value) for kind, value in KINDS.items()}
