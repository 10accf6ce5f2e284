"""Models of the OpenAPI document that all REST APIs share."""

from typing import Any

from pydantic import BaseModel, Field

from toolbus_common.admin_api.models import LocatedProblem


class Problem(BaseModel):
    """What failed, why, and how to fix it (RFC 9457). `code` is stable.

    `errors` lists invalid parts of the request; `data` contains details for programs.
    """

    type: str = Field(examples=["urn:toolbus:error:stale"])
    title: str = Field(examples=["Stale"])
    status: int = Field(examples=[412])
    detail: str = Field(examples=["The configuration has changed: its revision is 18, not 17."])
    code: str = Field(examples=["stale"])
    fix: str = Field(
        examples=["Read the entry again, and send If-Match with its current revision."]
    )
    retryable: bool = False
    errors: list[LocatedProblem] = []
    data: dict[str, Any] | None = None
