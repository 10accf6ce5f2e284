"""Headers of requests in agent mode."""

import pytest

from harness.builders.configurations import configuration_change
from toolbus_common.access.config_snapshot import ConfigView, hash_of, key_digest_of
from toolbus_common.access.principal import Principal
from toolbus_common.config import Configuration
from toolbus_common.contracts.model_calls import CHAT, EMBEDDINGS
from toolbus_common.errors import InvalidError
from toolbus_ingress.models_api.agent_request import is_agent_request

DIGEST = key_digest_of("tbk_bot_a-secret-of-agent-mode")


@pytest.fixture
def principal() -> Principal:
    key = {"models": ["*"], "agent": {}, "secret_hash": hash_of(DIGEST)}
    known = ConfigView()
    declared = Configuration.model_validate({"keys": {"bot": key}})
    known.projection.apply_change(configuration_change(declared))
    known.projection.apply_change(None)
    found = known.now.principal_for(DIGEST, 1.0)
    assert found is not None
    return found


def test_a_header_disables_agent_mode(principal: Principal) -> None:
    assert is_agent_request(CHAT, {}, principal)
    assert is_agent_request(CHAT, {b"x-toolbus-run": b"a1"}, principal)
    assert not is_agent_request(CHAT, {b"x-toolbus-agent": b"off"}, principal)


@pytest.mark.parametrize("value", [b"off", b"False", b"0"])
def test_no_run_is_continued_without_agent_mode(principal: Principal, value: bytes) -> None:
    headers = {b"x-toolbus-run": b"a1", b"x-toolbus-agent": value}
    for method in (CHAT, EMBEDDINGS):
        with pytest.raises(InvalidError, match="Remove one of the two headers"):
            is_agent_request(method, headers, principal)
