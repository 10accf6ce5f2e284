"""The MCP SDK's transports change messages, so the bridge does without them (ADR 40).

If this test fails, the SDK no longer does: read the decision again.
"""

import pytest
from mcp_types import jsonrpc_message_adapter

CALL = '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"n":%s}}'


@pytest.mark.parametrize("number", ["12345678901234567890.125", "1e400", "1.10"])
def test_the_sdk_writes_another_number_than_it_read(number: str) -> None:
    message = jsonrpc_message_adapter.validate_json(CALL % number, by_name=False)
    assert message.model_dump_json(by_alias=True, exclude_unset=True) != CALL % number
