"""Statements about recorded calls: the name of a customer cannot change one."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from toolbus_audit.projections.clickhouse_calls import ClickHouseCalls
from toolbus_common.contracts import SpendingQuery
from toolbus_common.errors import InvalidError

Question = Callable[[ClickHouseCalls, SpendingQuery], Awaitable[Any]]


@pytest.mark.parametrize(
    "question",
    [
        ClickHouseCalls.charges, ClickHouseCalls.messages, ClickHouseCalls.sequences,
        ClickHouseCalls.ids,
    ],
)  # fmt: skip
async def test_each_question_refuses_an_invalid_customer(question: Question) -> None:
    store: Any = None  # no statement is sent
    query = SpendingQuery(
        customer="acme' OR '1' = '1", start=0.0, end=1.0, stream="1", last=1, sequences=(1,),
        ids=("i",),
    )  # fmt: skip
    with pytest.raises(InvalidError, match="not a valid name"):
        await question(ClickHouseCalls(store), query)
