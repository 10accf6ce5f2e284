"""Each query has one handler: on its subject, in its service's queue, with its contract's types."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from toolbus_common import contracts
from toolbus_common.contracts import Query, StatusQuery
from toolbus_common.contracts.queries.registry import QUERIES, REPLIES
from toolbus_common.service.names import SERVICES

ROOT = Path(__file__).resolve().parents[2]
ALL = "all"  # the service in the subject of a query that every replica answers


@dataclass(frozen=True)
class Handler:
    """A call of `broker.subscriber` in a service, and the function it decorates, if it does."""

    service: str
    query: type[Query]
    options: dict[str, str]
    function: ast.AsyncFunctionDef | None


def handlers() -> Iterator[Handler]:
    for service in SERVICES:
        tree = ast.parse(
            (ROOT / "services" / service / f"toolbus_{service}" / "main.py").read_text()
        )
        decorated = {
            id(decorator): node
            for node in ast.walk(tree)
            if isinstance(node, ast.AsyncFunctionDef)
            for decorator in node.decorator_list
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("broker.subscriber"):
                query = getattr(contracts, ast.unparse(node.args[0]).removesuffix(".SUBJECT"))
                options = {str(each.arg): ast.unparse(each.value) for each in node.keywords}
                yield Handler(service, query, options, decorated.get(id(node)))


def test_every_query_has_one_handler_in_the_service_of_its_subject() -> None:
    found = sorted(each.query.__name__ for each in handlers())
    assert found == sorted(query.__name__ for query in QUERIES.values() if query != StatusQuery)
    for each in handlers():
        assert each.query.SUBJECT.split(".")[2] in (each.service, ALL)


def test_every_query_has_a_reply() -> None:
    assert set(REPLIES) == set(Query.__subclasses__())


def test_one_replica_answers_a_query_unless_it_is_for_all() -> None:
    for each in handlers():
        for_all = each.query.SUBJECT.split(".")[2] == ALL
        assert ("queue" in each.options) != for_all


def test_queries_that_clients_cause_are_handled_concurrently() -> None:
    for each in handlers():
        maximum = f"{each.query.__name__}.AT_ONCE" if each.query.AT_ONCE > 1 else None
        assert each.options.get("max_workers") == maximum


def test_a_decorated_handler_has_the_types_of_its_contract() -> None:
    functions = [(each.query, each.function) for each in handlers() if each.function]
    assert functions
    for query, function in functions:
        annotation = function.args.args[0].annotation
        assert annotation is not None
        assert function.returns is not None
        assert ast.unparse(annotation) == query.__name__
        assert ast.unparse(function.returns) == REPLIES[query].__name__


def test_the_command_line_starts_without_faststream() -> None:
    code = (
        "import sys, toolbus_cli.main, toolbus_cli.app, toolbus_cli.launcher.up\n"
        "import toolbus_cli.commands.operate.run, toolbus_cli.commands.operate.status\n"
        "print(sorted({'faststream', 'fast_depends'} & set(sys.modules)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=180, check=True
    )
    assert ended.stdout.strip() == "[]"
