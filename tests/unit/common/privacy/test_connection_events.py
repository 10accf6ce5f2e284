"""Events of connections hold pseudonyms of people."""

from typing import Any

import pytest

from toolbus_common.contracts import (
    ConnectionCreated,
    ConnectionEnded,
)


@pytest.mark.parametrize("event", [ConnectionCreated, ConnectionEnded])
def test_events_of_connections_name_people_by_pseudonyms(event: Any) -> None:
    about = {"id": "i", "at": 0.0, "customer": "s", "server": "docs"}
    assert event(**about, user="ann").people == {"user": "user:ann"}
    assert event(**about).people == {}
