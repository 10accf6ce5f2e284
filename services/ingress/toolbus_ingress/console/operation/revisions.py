"""Earlier revisions of the configuration: what restoring one would change, and restoring it."""

from typing import Any
from urllib.parse import quote

from fastapi import APIRouter
from starlette.responses import Response

from toolbus_ingress.console.api_client import ProblemError
from toolbus_ingress.console.responses import redirect
from toolbus_ingress.console.visitor import SignedIn, Visitor, address

API = "/api/v1/configuration/revisions"
router = APIRouter(prefix="/settings/revisions")


@router.get("/{revision}")
async def show_restored(visitor: SignedIn, revision: str) -> Response:
    """Return what would change if the revision was restored, without changing anything."""
    return await _planned(visitor, revision)


@router.post("/{revision}")
async def restore(visitor: SignedIn, revision: str) -> Response:
    """Restore the revision, if the configuration is still the one that was compared."""
    try:
        applied = await visitor.api.send(
            "POST", _path(revision), if_match=visitor.form.get("etag") or "0"
        )
    except ProblemError as problem:
        return await _planned(visitor, revision, problem)
    if not applied.data["secrets"]:
        return redirect(address("settings"))
    return _page(visitor, revision, applied.data, applied.etag)


async def _planned(
    visitor: Visitor, revision: str, problem: ProblemError | None = None
) -> Response:
    """Return the changes. A mistake that prevents them is shown in their place."""
    try:
        plan = await visitor.api.send("POST", _path(revision), query={"dry_run": True})
    except ProblemError as mistake:
        return _page(visitor, revision, None, "", problem or mistake)
    return _page(visitor, revision, plan.data, plan.etag, problem)


def _page(
    visitor: Visitor, revision: str, plan: Any, etag: str, problem: ProblemError | None = None
) -> Response:
    return visitor.page(
        "revision.html", problem.status if problem else 200, revision=revision, plan=plan,
        etag=etag, problem=problem,
    )  # fmt: skip


def _path(revision: str) -> str:
    return f"{API}/{quote(revision, safe='')}/restore"
