"""Agent mode: the gateway runs the tool calls that a model suggests, and asks the model again."""

from typing import Literal

from pydantic import Field

from toolbus_common.config.base import ConfigModel

# Which tools are added to model requests: the key's tools, or the tools of code mode or search.
Injection = Literal["tools", "code", "search"]


class InjectionLimits(ConfigModel):
    """Limits of the tools that are added to a model request.

    `tools` is the maximum number of tools in a request, with the client's own. `tokens` is the
    maximum number of tokens of the added tools, estimated at three bytes for each token.
    """

    tools: int = Field(default=128, ge=1, le=10_000)
    tokens: int = Field(default=50_000, ge=1, le=10_000_000)


class AgentMode(ConfigModel):
    """Agent mode of a key: its model requests run in a loop, with the limits of one run.

    The loop executes the suggested calls of tools in `auto_execute`; every other suggested call is
    returned to the client, which ends the run. `turns` is the maximum number of model requests,
    `calls` is the maximum number of tool calls, and `calls_per_tool` is the maximum for one tool.
    `repeats` is how often the same call can be made with the same arguments. `usd` and `tokens` are
    the maximum of all model requests and tool calls together. `seconds` is the maximum duration.
    """

    turns: int = Field(default=16, ge=1, le=1000)
    calls: int = Field(default=100, ge=1, le=10_000)
    calls_per_tool: int = Field(default=50, ge=1, le=10_000)
    repeats: int = Field(default=3, ge=1, le=100)
    usd: float | None = Field(default=None, ge=0, le=1_000_000)
    tokens: int | None = Field(default=None, ge=1, le=1_000_000_000)
    seconds: float = Field(default=600.0, gt=0, le=3600)
