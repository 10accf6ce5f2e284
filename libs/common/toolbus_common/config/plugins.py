"""A plugin: a program that is asked at points of a call, and of other decisions; its rights."""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, JsonValue, model_validator

from toolbus_common.config.base import ConfigModel, Name, Patterns
from toolbus_common.config.guards.guard import seconds_of
from toolbus_common.config.servers.endpoints import http_url
from toolbus_common.config.servers.isolation import Limits

Point = Literal[
    "before_decision", "after_decision", "before_upstream", "after_result",
    "before_model", "after_model",
    "on_event", "on_definition", "on_key", "on_login",
]  # fmt: skip
Sight = Literal["arguments", "result", "event", "definition", "key", "person"]
Deed = Literal["change", "refuse"]

_LIMITS = Limits(memory=1024, processes=64)
# The content of each point.
_CONTENT: dict[Point, Sight] = {
    "before_decision": "arguments",
    "after_decision": "arguments",
    "before_upstream": "arguments",
    "before_model": "arguments",
    "after_result": "result",
    "after_model": "result",
    "on_event": "event",
    "on_definition": "definition",
    "on_key": "key",
    "on_login": "person",
}
# After these points nothing is checked or decided again, so nothing can be changed there.
_DECIDED: frozenset[Point] = frozenset({"after_decision", "before_upstream"})
# These points belong to no call. Their content is a description, so nothing can be changed there.
_OUTSIDE: frozenset[Point] = frozenset({"on_event", "on_definition", "on_key", "on_login"})
_UNCHANGEABLE = _DECIDED | _OUTSIDE
_SCOPES = ("customers", "keys", "servers", "tools")
# What can limit the scope at a point outside of a call.
_SCOPES_OF: dict[Point, frozenset[str]] = {
    "on_definition": frozenset({"servers", "tools"}),
    "on_key": frozenset({"customers", "keys"}),
    "on_login": frozenset({"customers"}),
}


class Plugin(ConfigModel):
    """A plugin, and the points at which it is asked.

    `python` is the name of an entry point in the group `toolbus.plugins`, or of a module in the
    directory `cwd`. Toolbus runs it in an isolated process without network, with `limits`, and
    passes it `settings`.

    With `url`, each request is posted to this address (a webhook), with `headers`, which can
    contain references such as `${env:NAME}`. Without both, the plugin is any program that connects
    to the bus with the plugin's own user, and answers requests on `tb.hook.<point>.<plugin>`.

    `hooks` are the points. Plugins with a lower `order` are asked first, then by name. Those that
    may change content are asked before the guards, which check the changed content; all others are
    asked after the guards, and see only what the guards allow.

    `sees` is what a request contains besides the names of the call: its `arguments`, and its
    `result`; at `on_event`, the `event`; at `on_definition`, the `definition`; at `on_key`, the
    `key` without its secret; at `on_login`, the `person`. `may` is what the plugin may do besides
    looking: `change` the content, and `refuse` the call or what else it was asked about.

    `timeout` is the longest time for one answer, in seconds or with a unit (`300ms`). `fail`
    decides about a call about which the plugin gave no valid answer: `closed` refuses it, `open`
    allows it and records an alarm. Without it, plugins that may change or refuse fail closed,
    others fail open.

    `customers`, `keys`, `servers` and `tools` limit the calls about which the plugin is asked; an
    empty list means all. `tools` are patterns of tools, or of models (`provider/model`); providers
    of models count as servers.
    """

    hooks: tuple[Point, ...] = Field(min_length=1, max_length=16)
    python: str = Field(default="", max_length=256, pattern=r"^[A-Za-z0-9_.-]*$")
    cwd: str = Field(default="", max_length=1024)
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    limits: Limits = _LIMITS
    url: str = Field(default="", max_length=2048)
    headers: dict[str, str] = Field(default_factory=dict, repr=False)
    order: int = Field(default=0, ge=-1000, le=1000)
    sees: tuple[Sight, ...] = ()
    may: tuple[Deed, ...] = ()
    timeout: Annotated[float, BeforeValidator(seconds_of)] = Field(default=1.0, gt=0, le=60)
    fail: Literal["closed", "open"] | None = None
    customers: tuple[Name, ...] = Field(default=(), max_length=1000)
    keys: tuple[str, ...] = Field(default=(), max_length=1000)
    servers: tuple[Name, ...] = Field(default=(), max_length=1000)
    tools: Patterns = Field(default=(), max_length=1000)

    @property
    def fails_closed(self) -> bool:
        """Whether a call is refused if the plugin gives no valid answer about it."""
        return (self.fail or ("closed" if self.may else "open")) == "closed"

    @property
    def kind(self) -> str:
        """How the plugin is reached."""
        return "webhook" if self.url else "python" if self.python else "bus"

    @property
    def on_bus(self) -> bool:
        """Whether the plugin connects to the bus, with a user of its own."""
        return not self.url

    @property
    def changes(self) -> bool:
        """Whether the plugin may change content."""
        return "change" in self.may

    def receives(self, point: str) -> bool:
        """Return whether the requests of a point contain the content."""
        return _CONTENT.get(point) in self.sees  # type: ignore[call-overload]

    def changes_at(self, point: str) -> bool:
        """Return whether the plugin may change the content of a point."""
        return self.changes and point not in _UNCHANGEABLE

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if problems := [*self._problems()]:
            raise ValueError("; ".join(problems))
        return self

    def _problems(self) -> Iterator[str]:
        if self.url and self.python:
            yield "has url and python; remove one of them"
        if not self.python and (self.cwd or self.settings or self.limits != _LIMITS):
            yield "cwd, settings and limits apply only to a plugin with python; remove them"
        if self.url:
            http_url(self.url)
        elif self.headers:
            yield "headers apply only to a plugin with url; remove them"
        points = [point for point in self.hooks if point not in _UNCHANGEABLE]
        if self.changes and not points:
            yield (
                f"nothing can be changed at {' and '.join(self.hooks)}; use a point that may "
                "change content, such as before_decision, or remove change from may"
            )
        yield from self._scope_problems()
        if self.may and set(self.hooks) == {"on_event"}:
            yield "an event has happened, so a plugin can only look; remove may"
        for point in points if self.changes else ():
            if _CONTENT[point] not in self.sees:
                yield f"to change content at {point}, it must see {_CONTENT[point]}; add it to sees"
        for sight in self.sees:
            if sight not in {_CONTENT[point] for point in self.hooks}:
                yield f"none of its hooks has {sight}; remove it from sees, or add a hook"

    def _scope_problems(self) -> Iterator[str]:
        for point in self.hooks:
            for scope in _SCOPES:
                if getattr(self, scope) and scope not in _SCOPES_OF.get(point, _SCOPES):
                    yield (
                        f"{scope} cannot limit {point}; remove {scope}, or declare another plugin "
                        f"for {point}"
                    )
