"""Settings of the listener: TLS files that belong together, and networks of balancers."""

import pytest
from pydantic import ValidationError

from toolbus_common.access.anonymous import remote_reason
from toolbus_common.tls_files import TlsFileError
from toolbus_ingress.settings import Settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tls_cert": "a.pem"}, "TOOLBUS_TLS_KEY is not set"),
        ({"tls_key": "a.key"}, "TOOLBUS_TLS_CERT is not set"),
        ({"tls_client_ca": "ca.pem"}, "TOOLBUS_TLS_CLIENT_CA needs TLS"),
        ({"tls_cert": "a.pem", "tls_key": "a.key"}, "TOOLBUS_TLS_CERT: a.pem cannot be used"),
    ],
)
def test_files_that_are_missing_are_named(settings: dict[str, str], message: str) -> None:
    with pytest.raises(TlsFileError, match=message):
        Settings(**settings).handshake()  # type: ignore[arg-type]


def test_only_configured_balancers_send_a_proxy_header() -> None:
    assert not Settings().handshake()
    balanced = Settings(proxy_protocol_from="10.0.0.0/8, fd00::/8").handshake()
    assert balanced.balancers is not None
    assert balanced.balancers.cover("10.1.2.3")
    assert not balanced.balancers.cover("192.0.2.1")


def test_a_network_that_is_not_valid_is_refused() -> None:
    with pytest.raises(ValidationError, match="proxy_protocol_from"):
        Settings(proxy_protocol_from="10.0.0.1/8")


def test_anonymous_access_is_remote_behind_a_balancer() -> None:
    assert "TOOLBUS_PROXY_PROTOCOL_FROM=10.0.0.1" in remote_reason("127.0.0.1", "", "", "10.0.0.1")
    assert remote_reason("127.0.0.1", "", "", "") == ""
