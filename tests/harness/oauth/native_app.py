"""OAuth client on a person's machine, with a redirect to loopback."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from queue import Queue
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode, urlsplit

from harness.network.json_server import Request, Response, answering
from harness.services.authorization_service import CHALLENGE, VERIFIER

SECONDS = 60.0
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
HTML = {"content-type": "text/html"}
THANKS = b"<!doctype html><html lang='en'><title>Thanks</title><h1>Back</h1>"


class Program:
    """A client that registers itself.

    After the redirect, its page redirects the browser to another site.
    """

    def __init__(self, gateway: str, name: str) -> None:
        self.gateway = gateway
        self.name = name
        self.answers: Queue[dict[str, str]] = Queue()
        self.id = ""
        self._port = 0

    @contextmanager
    def listening(self) -> Iterator[Self]:
        """Listen for the redirect until the context ends."""
        with answering(self._answer) as self._port:
            self.id = self._registered()
            yield self

    @property
    def redirect(self) -> str:
        """The redirect URI."""
        return f"http://127.0.0.1:{self._port}/callback"

    def address(self, **more: str) -> str:
        """Return the authorization URL for the browser."""
        request = {
            "response_type": "code",
            "client_id": self.id,
            "redirect_uri": self.redirect,
            "state": "a-state",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            "resource": f"{self.gateway}/mcp",
            **more,
        }
        return f"{self.gateway}/oauth/authorize?{urlencode(request)}"

    def answer(self) -> dict[str, str]:
        """Return the parameters of the redirect."""
        return self.answers.get(timeout=SECONDS)

    def token(self) -> str:
        """Exchange the received code for a token."""
        return self._token(
            grant_type="authorization_code",
            code=self.answer()["code"],
            code_verifier=VERIFIER,
            redirect_uri=self.redirect,
        )

    def waits(self) -> dict[str, str]:
        """Start a device authorization. Return the response, which contains the user code."""
        return self._posted("/oauth/device/code", urlencode({"client_id": self.id}))

    def fetches(self, waiting: dict[str, str]) -> str:
        """Return the token when a person has entered the code."""
        return self._token(grant_type=DEVICE, device_code=waiting["device_code"])

    def _token(self, **form: str) -> str:
        result = self._posted("/oauth/token", urlencode({"client_id": self.id, **form}))
        assert "access_token" in result, result
        return str(result["access_token"])

    def _registered(self) -> str:
        about = {
            "client_name": self.name,
            "redirect_uris": [self.redirect],
            "grant_types": ["authorization_code", "refresh_token", DEVICE],
            "token_endpoint_auth_method": "none",
        }
        return str(self._posted("/oauth/register", json.dumps(about))["client_id"])

    def _posted(self, path: str, body: str) -> dict[str, Any]:
        form = "json" if body.startswith("{") else "x-www-form-urlencoded"
        to = HTTPConnection(urlsplit(self.gateway).netloc, timeout=SECONDS)
        with closing(to):
            to.request("POST", path, body, {"Content-Type": f"application/{form}"})
            parsed: dict[str, Any] = json.loads(to.getresponse().read())
        return parsed

    def _answer(self, request: Request) -> Response:
        """Record the redirect, and redirect the browser to another origin."""
        target = urlsplit(request.path)
        if target.path != "/callback":
            return Response(200 if target.path == "/thanks" else 404, THANKS, HTML)
        self.answers.put(dict(parse_qsl(target.query)))
        return Response(302, headers={"location": f"http://localhost:{self._port}/thanks"})
