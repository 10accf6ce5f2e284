"""Analytics: each saved query as a form, a chart, a table with links to calls, and CSV."""

from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.responses import Response

from toolbus_ingress.console.api_client import ProblemError
from toolbus_ingress.console.pages.calls import Table
from toolbus_ingress.console.records.figures import figure_of, measures_of
from toolbus_ingress.console.records.tables import (
    NAMES,
    csv_of,
    in_days,
    link_of,
    numeric_columns,
    shown,
)
from toolbus_ingress.console.responses import download
from toolbus_ingress.console.visitor import SignedIn, Visitor, address

SHOWN, CHARTED, DOWNLOADED = 200, 2000, 10_000
PERIODS = ("1h", "24h", "7d", "30d", "90d")
_API = "/api/v1/audit/queries"
_CONTAINS = "in."
_ALL = "%"  # the pattern of LIKE that every text matches
TOPICS: dict[str, tuple[str, ...]] = {
    "Spending": (
        "spend-by-day", "spend-by-customer", "spend-by-team", "spend-by-key", "spend-by-tool",
        "cost-by-caller", "cost-by-run", "one-run",
    ),
    "Calls": (
        "who-called", "one-call", "failures", "slowest-tools", "first-uses", "programs",
        "unresolved-calls", "servers",
    ),
    "Models": (
        "model-spend", "model-tokens", "model-latency", "model-fallbacks", "suggested-calls",
        "cached-input", "cache-savings",
    ),
    "Policy": ("denials", "denied-rules", "approvals", "flow-decisions"),
    "Guards": ("guard-coverage", "guard-findings", "guard-failures", "guard-time"),
    "Context": ("context-by-key", "context-cost"),
    "Changes and access": ("config-changes", "definition-changes", "keys-created", "rejections"),
}  # fmt: skip
router = APIRouter(prefix="/analytics")


@router.get("")
async def list_queries(visitor: SignedIn) -> Response:
    """Return the saved queries by topic."""
    saved = {each["name"]: each for each in (await visitor.api.get(_API))["items"]}
    topics = {
        topic: [saved.pop(name) for name in names if name in saved]
        for topic, names in TOPICS.items()
    }
    topics["Other"] = list(saved.values())
    return visitor.page("analytics.html", topics=topics)


@router.get("/{name}")
async def show_query(visitor: SignedIn, name: str) -> Response:
    """Return one saved query with its rows, if every parameter has a value."""
    saved, chosen = await _saved(visitor, name), _chosen(visitor)
    fields = [
        {**each, "value": chosen.get(each["name"], (each["default"] or "").strip(_ALL))}
        for each in saved["parameters"]
    ]
    complete = all(each["value"] or each["default"] == _ALL for each in fields)
    table, problem = Table([], []), None
    if complete:
        try:
            table = await _rows(visitor, saved, CHARTED)
        except ProblemError as error:
            problem = error
    since = next((each["value"] for each in fields if each["name"] == "since"), "")
    figure = figure_of(table, chosen.get("measure", ""))
    return visitor.page(
        "analytics_query.html",
        problem.status if problem else 200,
        saved=saved,
        fields=fields,
        filters={each: chosen.get(f"{_CONTAINS}{each}", "") for each in _filters(table, chosen)},
        periods=PERIODS,
        figure=figure,
        measures=measures_of(table),
        columns=table.columns,
        amounts=numeric_columns(table),
        rows=[_row(row, in_days(since)) for row in table.records[:SHOWN]],
        found=len(table.rows),
        more=table.more,
        complete=complete,
        download=f"{address('analytics', name, 'csv')}?{urlencode(chosen)}",
        problem=problem,
    )


@router.get("/{name}/csv")
async def download_rows(visitor: SignedIn, name: str) -> Response:
    """Return the rows of one saved query as CSV."""
    table = await _rows(visitor, await _saved(visitor, name), DOWNLOADED)
    return download(csv_of(table.columns, table.rows), f"{name}.csv", "text/csv; charset=utf-8")


async def _saved(visitor: Visitor, name: str) -> dict[str, Any]:
    found = (await visitor.api.get(_API))["items"]
    for each in found:
        if each["name"] == name:
            saved: dict[str, Any] = each
            return saved
    raise HTTPException(404)


def _chosen(visitor: Visitor) -> dict[str, str]:
    """Return the choices in the address of the page, without empty ones."""
    return {name: value for name, value in visitor.request.query_params.items() if value}


async def _rows(visitor: Visitor, saved: dict[str, Any], limit: int) -> Table:
    chosen = _chosen(visitor)
    names = {each["name"] for each in saved["parameters"]}
    body = {
        "parameters": {name: value for name, value in chosen.items() if name in names},
        "contains": {
            name.removeprefix(_CONTAINS): value
            for name, value in chosen.items()
            if name.startswith(_CONTAINS)
        },
        "limit": limit,
    }
    reply = (await visitor.api.send("POST", f"{_API}/{saved['name']}", body)).data
    return Table(reply["columns"], reply["rows"], reply["more"])


def _filters(table: Table, chosen: dict[str, str]) -> list[str]:
    """Return the columns that the form filters by: those in the table, and those in use."""
    used = [each.removeprefix(_CONTAINS) for each in chosen if each.startswith(_CONTAINS)]
    return [each for each in NAMES if each in table.columns or each in used]


def _row(row: dict[str, Any], days: int) -> dict[str, Any]:
    return {"href": link_of(row, days), "cells": [shown(*each) for each in row.items()]}
