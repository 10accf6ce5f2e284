"""The rate limit of requests that need no credentials."""

import pytest

from toolbus_oauth.web.errors import OAuthError
from toolbus_oauth.web.rate_limit import RateLimit


def test_what_anybody_may_ask_for_is_done_so_often_and_no_oftener() -> None:
    now = 0.0
    pace = RateLimit(2, 60.0, lambda: now)
    pace.keep()
    pace.keep()
    with pytest.raises(OAuthError):
        pace.keep()
    now = 61.0
    pace.keep()
