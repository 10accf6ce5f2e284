"""The rate limit of requests that need no credentials."""

import pytest

from toolbus_oauth.web.errors import OAuthError
from toolbus_oauth.web.rate_limit import RateLimit


def test_requests_beyond_the_limit_are_rejected_until_the_period_ends() -> None:
    now = 0.0
    limit = RateLimit(2, 60.0, lambda: now)
    limit.keep()
    limit.keep()
    with pytest.raises(OAuthError):
        limit.keep()
    now = 61.0
    limit.keep()
