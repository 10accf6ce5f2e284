"""The HTTP session of OpenTelemetry's exporters."""

from typing import Any

import requests


def session() -> requests.Session:
    """Return a session that raises an error on a redirect. The SDK would count it as a success."""
    made = requests.Session()
    made.hooks["response"].append(_reject_redirect)
    return made


def _reject_redirect(response: requests.Response, *_: Any, **__: Any) -> None:
    if response.is_redirect:
        response.close()
        raise requests.TooManyRedirects(
            f"HTTP {response.status_code}: redirects are not followed; configure the final address"
        )
