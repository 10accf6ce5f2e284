"""A guard: what it looks for, in which phases, and what it does about a finding."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, JsonValue, model_validator

from toolbus_common.config.base import ConfigModel, Name, Patterns, with_tuples
from toolbus_common.config.guards.services import KEY, service_problems, service_url
from toolbus_common.config.servers.endpoints import http_url

Kind = Literal[
    "secrets", "pii", "injection", "limits",
    "http", "mcp", "bedrock", "azure_content_safety", "azure_prompt_shields", "patronus",
    "gray_swan", "lakera", "model_armor",
]  # fmt: skip
Phase = Literal["arguments", "results", "definitions", "prompts", "completions"]
Action = Literal["block", "redact", "flag", "ask"]
# The kinds that Toolbus evaluates itself. All other kinds send the content to another service.
BUILT_IN_KINDS: frozenset[Kind] = frozenset({"secrets", "pii", "injection", "limits"})
# Phases after which no call can wait for an approval.
_TOO_LATE: frozenset[Phase] = frozenset({"results", "completions"})
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s)")


def _seconds(value: Any) -> Any:
    """Return a duration such as `300ms` or `2s` in seconds; a number is in seconds already."""
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return value
    return float(found[1]) / (1000 if found[2] == "ms" else 1)


class Guard(ConfigModel):
    """A guard of the content of calls.

    `kind` is what it looks for. `secrets`, `pii`, `injection` and `limits` are built in; the other
    kinds ask another service: `http` at `url`, `mcp` the tool `tool` of the server `server`, and
    the named products at their own API. `options` are the settings of the kind. `key` is the API
    key of the service; `bedrock` can have the `credentials` `access_key`, `secret_key` and
    optionally `session_token` instead. `headers` are sent with each request. All of these can be
    references such as `${env:NAME}`.

    `on` are the phases: the arguments of tool calls, their results, the definitions of tools,
    the prompts (requests to models), and the completions (responses of models).
    `action` is the reaction to a finding: `block` rejects the call, `redact` replaces what was
    found, `flag` only records it, and `ask` requires an approval; `ask` is not possible for results
    and completions. In the mode `observe`, the
    reaction is recorded but does not happen.

    `fail` decides about a call that the guard could not check: `closed` rejects it, `open` lets it
    pass and records an alarm. Without it, `block`, `redact` and `ask` fail closed, `flag` fails
    open. `timeout` is the longest time for one check, in seconds or with a unit (`300ms`).

    `fields` are names of JSON members whose values are never checked. `rules` are the names of
    rules of the kind that apply; without it, all apply. `except_rules` do not apply. `min_score`
    (0 to 1) is the lowest score of a finding that counts.

    `restore` are the tools that receive the original value where a caller passes a placeholder of
    this guard. Without it, a redaction cannot be undone.

    With `always`, the guard applies to every call in its phases, without being attached.
    """

    kind: Kind
    on: tuple[Phase, ...] = Field(min_length=1)
    action: Action = "flag"
    mode: Literal["enforce", "observe"] = "enforce"
    fail: Literal["closed", "open"] | None = None
    timeout: Annotated[float, BeforeValidator(_seconds)] = Field(default=2.0, gt=0, le=60)
    fields: tuple[str, ...] = Field(default=(), max_length=256)
    rules: tuple[str, ...] | None = Field(default=None, max_length=1000)
    except_rules: tuple[str, ...] = Field(default=(), max_length=1000)
    min_score: float = Field(default=0.0, ge=0, le=1)
    restore: Patterns = ()
    always: bool = False
    url: str = ""
    credentials: dict[str, str] = Field(default_factory=dict, repr=False)
    headers: dict[str, str] = Field(default_factory=dict, repr=False)
    server: Name | None = None
    tool: str = Field(default="", max_length=256)
    options: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _takes_one_key(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        fields = with_tuples(fields, unless="options")
        if KEY not in fields:
            return fields
        if fields.get("credentials"):
            raise ValueError("has 'key' and 'credentials'; put all keys in 'credentials'")
        rest = {name: value for name, value in fields.items() if name != KEY}
        return rest | ({"credentials": {KEY: fields[KEY]}} if fields[KEY] else {})

    @property
    def service_url(self) -> str:
        """The address of the guard's service; empty if it is not called over HTTP."""
        return service_url(self.kind, self.url, self.options)

    @property
    def ambient(self) -> bool:
        """Whether the credentials of the executor's machine are used."""
        return self.kind in ("bedrock", "model_armor") and bool(self.options.get("ambient"))

    @property
    def fails_closed(self) -> bool:
        """Whether a call that the guard could not check is rejected."""
        return self.mode == "enforce" and (self.fail or self._default_fail) == "closed"

    @property
    def is_built_in(self) -> bool:
        """Whether Toolbus evaluates the guard itself."""
        return self.kind in BUILT_IN_KINDS

    @property
    def _default_fail(self) -> str:
        return "open" if self.action == "flag" else "closed"

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        """Report all mistakes about the kind at once."""
        if problems := [*self._problems()]:
            raise ValueError("; ".join(problems))
        return self

    def _problems(self) -> Iterator[str]:
        if self.url:
            http_url(self.url)
        if self.restore and self.action != "redact":
            yield "'restore' applies only to the action 'redact'; remove it"
        if self.action == "ask" and (late := [each for each in self.on if each in _TOO_LATE]):
            yield (
                f"the action 'ask' cannot be used for {' and '.join(late)}, because the call was "
                "executed before; use 'block', or another guard for them"
            )
        if self.kind == "mcp" and not (self.server and self.tool):
            yield "needs 'server' and 'tool', which name the tool that checks the content"
        if self.kind != "mcp" and (self.server or self.tool):
            yield "'server' and 'tool' apply only to guards of kind 'mcp'; remove them"
        if self.is_built_in and (self.url or self.credentials or self.headers):
            yield "'url', 'key' and 'headers' apply only to guards that ask a service; remove them"
        if not self.is_built_in:
            yield from self._service_problems()

    def _service_problems(self) -> Iterator[str]:
        if self.restore:
            yield "'restore' applies only to the built-in kinds; remove it"
        if self.kind == "mcp" and self.headers:
            yield "'headers' does not apply to guards of kind 'mcp'; remove it"
        yield from service_problems(self.kind, self.url, self.credentials, self.options)
