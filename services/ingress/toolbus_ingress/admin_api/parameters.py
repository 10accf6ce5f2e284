"""Parameters that operations of the administration API share."""

from typing import Annotated, Literal

from fastapi import Header, Path, Query

from toolbus_ingress.rest.parameters import matching

NAME = r"^[A-Za-z0-9](?:[A-Za-z0-9-]|_[A-Za-z0-9-]){0,31}$"
PATTERN = r"^.{1,256}$"
APPROVAL = r"^[0-9a-f]{32}$"
CALL = r"^[A-Za-z0-9._-]{1,128}$"
QUERY = r"^[a-z0-9]+(?:-[a-z0-9]+){0,15}$"
RUN = r"^[0-9a-f]{1,64}$"
EARLIER = r"^[0-9]{1,32}$"
REVISION = r'^(?:\*|"?[0-9]{1,18}"?)$'
_INVALID_NAME = (
    "The name in the path is invalid. See docs/reference/configuration.md for valid names."
)

Name = Annotated[str, Path(pattern=NAME, max_length=64), matching(NAME, _INVALID_NAME)]
Pattern = Annotated[str, Path(pattern=PATTERN), matching(PATTERN, _INVALID_NAME)]
ApprovalId = Annotated[str, Path(pattern=APPROVAL), matching(APPROVAL, _INVALID_NAME)]
RunId = Annotated[str, Path(pattern=RUN), matching(RUN, _INVALID_NAME)]
CallId = Annotated[str, Path(pattern=CALL), matching(CALL, _INVALID_NAME)]
QueryName = Annotated[str, Path(pattern=QUERY, max_length=64), matching(QUERY, _INVALID_NAME)]
Earlier = Annotated[
    str,
    Path(pattern=EARLIER, description="The number of a stored revision."),
    matching(EARLIER, "The revision in the path must be a number, such as 17."),
]
Limit = Annotated[
    int,
    Query(ge=1, le=1000, description="Maximum number of entries."),
    matching("[0-9]{1,4}", "limit must be a number from 1 to 1000."),
]
After = Annotated[
    str,
    Query(
        max_length=256, description="Return the names after this one: `next` of the previous page."
    ),
]
Search = Annotated[
    str, Query(max_length=256, description="Return only entries whose names contain this text.")
]
Everything = Annotated[
    Literal["true", "false"],
    Query(description="With `true`, also definitions that are not quarantined."),
]
DryRun = Annotated[
    Literal["true", "false"], Query(description="Return the changes without applying them.")
]
IfMatch = Annotated[
    str,
    Header(
        alias="If-Match",
        pattern=REVISION,
        description='The expected revision, such as "17", or * for any revision.',
    ),
    matching(REVISION, 'If-Match must be * or a revision in quotes, such as "17".'),
]


def revision(if_match: str) -> str:
    """Return the revision of an If-Match header: a number, `*` or empty."""
    return if_match.strip('"')
