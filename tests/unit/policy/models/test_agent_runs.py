"""Runs of agent mode at admission: request rates count them, and rates of tokens do not."""

from time import time
from typing import Any

import pytest

from toolbus_common.access.config_snapshot import ConfigSnapshot, hash_of
from toolbus_common.config import Configuration
from toolbus_common.contracts.agent_runs import AGENT, AGENT_RUN
from toolbus_common.errors import UnknownToolError
from toolbus_common.mcp.builtin_server import BUILT_IN
from toolbus_policy.admission.authorizer import Authorizer
from toolbus_policy.ledger.admitted_call import Admission

KEY_DIGEST = "d" * 64
RATES = [{"calls": 5, "per": "minute"}, {"tokens": 1000, "per": "minute"}]


def admit(**key: Any) -> Admission:
    """Return the admission of a run."""
    declared = {"keys": {"bot": {"secret_hash": hash_of(KEY_DIGEST), "rates": RATES, **key}}}
    snapshot = ConfigSnapshot.of(Configuration.model_validate(declared))
    return Authorizer(snapshot, {}).authorize(KEY_DIGEST, BUILT_IN, AGENT_RUN, AGENT, time())


def test_a_run_counts_against_rates_of_requests_and_not_of_tokens() -> None:
    payer = admit(agent={}).payer
    assert [each.maximum for each in payer.rates] == [5]
    assert payer.token_rates == ()


def test_a_key_without_agent_mode_has_no_runs() -> None:
    with pytest.raises(UnknownToolError):
        admit()
