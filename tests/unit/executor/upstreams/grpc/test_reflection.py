"""A server that answers reflection with a failure instead of descriptors."""

from typing import Any

import pytest

from toolbus_executor.upstreams.grpc.reflection import Reflected, ReflectionError, Response

UNIMPLEMENTED = 12


async def test_a_server_without_reflection_is_reported_with_its_error_code() -> None:
    async def fail(_request: Any) -> Any:
        return Response(failure={"error_code": UNIMPLEMENTED})

    with pytest.raises(ReflectionError, match="error code 12"):
        await Reflected(fail).read()


async def test_a_service_whose_descriptor_is_missing_is_left_out_with_the_reason() -> None:
    async def list_only(request: Any) -> Any:
        if request.HasField("file_containing_symbol"):
            return Response(failure={"error_code": 5})
        return Response(services={"service": [{"name": "shop.Orders"}]})

    reflected = Reflected(list_only)
    await reflected.read()
    assert reflected.services == []
    assert "error code 5" in reflected.left_out["shop.Orders"]
