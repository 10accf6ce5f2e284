"""Webhooks of the configuration: what their secrets must be."""

import pytest
from pydantic import ValidationError

from harness.receivers.webhook_receiver import webhook_secret
from toolbus_common.config import Webhook
from toolbus_common.config_store.loading.loader import load

SECRET = webhook_secret("a secret of the receiver's")


@pytest.mark.parametrize(
    "secret",
    [
        SECRET, webhook_secret("s" * 24), webhook_secret("s" * 64), f"{SECRET} {SECRET}",
        "${env:HOOK}", "whsec_${env:HOOK}", f"${{vault:kv/hooks#new}} {SECRET}",
        "(set)", "sealed:v1:key:digest:text",
    ],
)  # fmt: skip
def test_a_secret_is_a_signing_key_or_a_reference_to_one(secret: str) -> None:
    assert Webhook(url="https://hook.example", secret=secret).secret == secret


@pytest.mark.parametrize(
    "secret",
    [
        " ", "hunter2-hunter2", "whsec_", "whsec_not-base64!", webhook_secret("s" * 23),
        webhook_secret("s" * 65), SECRET.removeprefix("whsec_"), f"{SECRET} hunter2", SECRET[:-1],
        "${env:HOOK} hunter2",
    ],
)  # fmt: skip
def test_another_literal_is_rejected_with_a_fix_and_without_being_shown(secret: str) -> None:
    with pytest.raises(ValidationError, match="whsec_ and the Base64 of 24 to 64 bytes"):
        Webhook(url="https://hook.example", secret=secret)
    text = f'webhooks:\n  ops: {{url: "https://hook.example", secret: "{secret}"}}'
    (problem,) = load(text, {"HOOK": SECRET}).problems
    assert (problem.line, problem.path) == (2, "webhooks.ops.secret")
    assert str(problem).endswith(
        "must be whsec_ and the Base64 of 24 to 64 bytes, because receivers verify no other "
        'signature; create one: echo "whsec_$(openssl rand -base64 32)"'
    )
