"""The whole configuration as YAML: show it, preview the difference, and apply it."""

from fastapi import APIRouter
from starlette.responses import Response

from toolbus_ingress.console.api_client import ProblemError
from toolbus_ingress.console.responses import redirect
from toolbus_ingress.console.visitor import SignedIn, address

YAML = "application/yaml"
_API = "/api/v1/configuration"
router = APIRouter(prefix="/configuration")


@router.get("")
async def show_configuration(visitor: SignedIn) -> Response:
    """Return the configuration without secrets."""
    answer = await visitor.api.send("GET", _API, query={"format": "yaml"})
    return visitor.page(
        "configuration.html", text=answer.body.decode(), etag=answer.etag, preview=None
    )


@router.post("")
async def change_configuration(visitor: SignedIn) -> Response:
    """Show the difference to the current configuration, or apply the new one."""
    text, etag = visitor.form.get("text", ""), visitor.form.get("etag", "")
    applies = visitor.form.get("action") == "apply"
    try:
        answer = await visitor.api.send(
            "PUT",
            _API,
            text.encode(),
            query={} if applies else {"dry_run": True},
            media_type=YAML,
            if_match=etag,
        )
    except ProblemError as problem:
        return visitor.page(
            "configuration.html", problem.status, text=text, etag=etag, preview=None,
            problem=problem,
        )  # fmt: skip
    if applies and not answer.data["secrets"]:
        return redirect(address("configuration"))
    return visitor.page("configuration.html", text=text, etag=etag, preview=answer.data)
