"""Runs of agent mode: the list, and one run step by step."""

from urllib.parse import quote

from fastapi import APIRouter
from starlette.responses import Response

from toolbus_ingress.console.responses import redirect
from toolbus_ingress.console.visitor import SignedIn, address

PAGE = 50
_API = "/api/v1/runs"
router = APIRouter(prefix="/runs")


@router.get("")
async def list_runs(visitor: SignedIn, after: str = "") -> Response:
    """Return one page of runs, the newest first."""
    found = await visitor.api.get(_API, limit=PAGE, after=after)
    rows = found["runs"]
    following = rows[-1]["run"] if found["more"] and rows else ""
    return visitor.page("runs.html", rows=rows, after=after, next=following)


@router.get("/{run}")
async def show_run(visitor: SignedIn, run: str) -> Response:
    """Return one run with its steps."""
    found = await visitor.api.get(f"{_API}/{quote(run, safe='')}")
    return visitor.page("run.html", run=found)


@router.post("/{run}/cancel")
async def cancel_run(visitor: SignedIn, run: str) -> Response:
    """Cancel a run."""
    await visitor.api.send("POST", f"{_API}/{quote(run, safe='')}/cancel")
    return redirect(address("runs", run))
