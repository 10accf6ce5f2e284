"""Sampling: requests of a server for the answer of a model, during a call."""

from typing import Annotated

from pydantic import Field

from toolbus_common.config.base import ConfigModel

LARGEST_REQUEST = 4 << 20  # bytes

_Model = Annotated[str, Field(min_length=1, max_length=300, pattern=r"^[!-~]+$")]


class Sampling(ConfigModel):
    """Answers of a model to the sampling requests of a server.

    `model` is an alias or `provider/model`. Each answer is a model request of the caller of the
    tool, whose key must be granted the model. `max_tokens` limits the output of one answer,
    `max_requests` the answers within one call, and `max_bytes` the size of one request. With
    `tools`, the server may offer its own tools to the model. With `approve`, each request waits for
    the approval of a person.
    """

    model: _Model
    max_tokens: int = Field(default=1000, ge=1, le=1_000_000)
    max_requests: int = Field(default=10, ge=1, le=100)
    max_bytes: int = Field(default=256 << 10, ge=1 << 10, le=LARGEST_REQUEST)
    tools: bool = False
    approve: bool = False
