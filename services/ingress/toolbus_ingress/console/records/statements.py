"""SQL on all recorded events, as a table or as CSV."""

from fastapi import APIRouter
from starlette.responses import Response

from toolbus_ingress.console.api_client import ProblemError
from toolbus_ingress.console.pages.calls import queried
from toolbus_ingress.console.records.tables import csv_of
from toolbus_ingress.console.responses import download
from toolbus_ingress.console.visitor import SignedIn

EXAMPLE = "SELECT event, count() AS events\nFROM events\nGROUP BY event\nORDER BY events DESC"
router = APIRouter(prefix="/calls/sql")


@router.get("")
async def show_statement(visitor: SignedIn) -> Response:
    """Return the form for SQL."""
    return visitor.page("sql.html", sql=EXAMPLE, found=None)


@router.post("")
async def run_statement(visitor: SignedIn) -> Response:
    """Return the rows of a statement."""
    sql = visitor.form.get("sql", "")
    try:
        found = await queried(visitor, sql)
    except ProblemError as problem:
        return visitor.page("sql.html", problem.status, sql=sql, found=None, problem=problem)
    if visitor.form.get("action") == "csv":
        return download(csv_of(found.columns, found.rows), "rows.csv", "text/csv; charset=utf-8")
    return visitor.page("sql.html", sql=sql, found=found)
