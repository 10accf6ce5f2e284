"""Upstream servers, and how agents see their tools."""

import re
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from toolbus_common.declared.basics import Declared, Patterns


class ToolView(Declared):
    """How agents see a tool: under an alias, with another description, or not at all.

    Grants, prices and facts keep to the name its server gave it.
    """

    alias: str = ""
    description: str = Field(default="", max_length=4096)
    hidden: bool = False

    @field_validator("alias")
    @classmethod
    def _is_a_name(cls, alias: str) -> str:
        if alias and (not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", alias) or "__" in alias):
            raise ValueError(
                "must be 1 to 64 letters, digits, '-' or '_', without two '_' in a row"
            )
        return alias


class Server(Declared):
    """An upstream MCP server: `url` for streamable HTTP, `command` for stdio, `sse` for HTTP+SSE.

    `timeout` is seconds per call, `concurrency` calls at once. Values of `headers` and `env`
    may be `${env:NAME}`, resolved by the executor and nowhere else. `expose` bounds what anybody
    may use of it, by its own names. `definitions` says what happens to a tool that is new or has
    changed: `trust` shows it; `first` pins what is seen first and holds back later changes;
    `each` holds back everything until somebody approves it. `code_mode` keeps its tools for
    programs (true), or shows them as they are even to callers in code mode (false).
    """

    url: str = ""
    sse: str = ""
    headers: dict[str, str] = Field(default_factory=dict)
    command: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict)
    cwd: str = ""
    tools: dict[str, ToolView] = Field(default_factory=dict)  # by the server's own names
    expose: Patterns = ("*",)
    definitions: Literal["trust", "first", "each"] = "first"
    code_mode: bool | None = None
    timeout: float = Field(default=30.0, gt=0, le=3600)
    concurrency: int = Field(default=64, ge=1, le=4096)

    @field_validator("url", "sse")
    @classmethod
    def _is_http(cls, url: str) -> str:
        if url and not re.match(r"^https?://[^/\s]+", url):
            raise ValueError("must begin with http:// or https:// and name a host")
        return url

    @field_validator("tools")
    @classmethod
    def _differ(cls, tools: dict[str, ToolView]) -> dict[str, ToolView]:
        owners: dict[str, str] = {}
        for own, view in tools.items():
            if view.hidden:
                continue
            name = view.alias or own
            before = owners.setdefault(name, own)
            if before != own:
                raise ValueError(
                    f"{before} and {own} would both be called {name}; give one another alias"
                )
        return tools

    @model_validator(mode="after")
    def _is_one_kind(self) -> Self:
        if [bool(self.url), bool(self.command), bool(self.sse)].count(True) != 1:
            raise ValueError(
                "needs exactly one of url (streamable HTTP), command (stdio) or sse (HTTP+SSE)"
            )
        if self.command and self.headers:
            raise ValueError("headers belong to a url or sse, env to a command")
        return self
