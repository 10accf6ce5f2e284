"""A gateway with separate services, mock providers, and two real llama.cpp servers."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from harness.models.llama_gateway import LlamaGateway, running_llamas
from harness.models.llama_server import MODEL, model_file
from harness.models.model_gateway import ModelGateway

COLUMNS = ("model", "api", "input", "output", "micro-dollars", "first token ms", "whole ms", "cut")
ROWS = pytest.StashKey[list[tuple[str, ...]]]()
USED = "SELECT server, tool, charge, detail FROM events WHERE event = 'model.used' ORDER BY at"


@pytest.fixture(scope="session")
def llamas(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[LlamaGateway]:
    """Run the gateway and all providers. Store a table of the requests to llama.cpp."""
    assert pytestconfig.cache is not None
    file = model_file(pytestconfig.cache.mkdir("model"))
    with running_llamas(tmp_path_factory.mktemp("llama"), file) as gateway:
        yield gateway
        rows = gateway.models.cluster.rows(USED)
        pytestconfig.stash[ROWS] = [table_row(row) for row in rows if row["tool"] == MODEL]


@pytest.fixture(scope="session")
def models(llamas: LlamaGateway) -> ModelGateway:
    """Return the gateway."""
    return llamas.models


def table_row(row: dict[str, Any]) -> tuple[str, ...]:
    """Return a row of the table."""
    detail = json.loads(row["detail"])
    times = [f"{detail.get(name, 0) / 1000:.0f}" for name in ("first_token_us", "latency_us")]
    tokens = [str(detail.get(name, 0)) for name in ("input_tokens", "output_tokens")]
    cut = "cut" if detail.get("cut") else ""
    model = f"{row['server']}/{row['tool']}"
    return (model, detail.get("provider_kind", ""), *tokens, str(row["charge"]), *times, cut)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the table."""
    rows = [COLUMNS, *config.stash.get(ROWS, [])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    terminalreporter.section("requests to llama.cpp")
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        terminalreporter.write_line("  ".join(cells))
