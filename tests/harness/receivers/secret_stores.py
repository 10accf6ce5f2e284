"""Third-party secret stores over HTTP, according to their documented interfaces.

One server implements the parts of HashiCorp Vault (KV version 2, AppRole), Google's Secret Manager
and Azure's Key Vault that are necessary to read a secret. It rejects requests without a valid
token.
"""

import base64
import re
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Self

from harness.network.json_server import Request, Response, answering

ROLE, ROLE_SECRET = "role-1", "role-secret-1"


@dataclass
class SecretStores:
    """The server. `kept` are the secrets by path; `tokens` are the valid tokens, one per sign-in.

    With `certificate` and its key, the server uses TLS.
    """

    kept: dict[str, Any] = field(default_factory=dict)
    tokens: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    certificate: tuple[str, str] | None = None
    down: bool = False
    port: int = 0  # port of the URL

    def __enter__(self) -> Self:
        self._served = ExitStack()
        self.port = self._served.enter_context(
            answering(self._http_answer, certificate=self.certificate)
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._served.close()

    def _http_answer(self, request: Request) -> Response:
        body = request.json if request.body else {}
        status, result = self.reply(request.method, request.path, request.headers, body)
        headers = {"Content-Type": "application/json"}
        if status == 401:
            headers["WWW-Authenticate"] = _CHALLENGE
        return Response(status, result, headers)

    def reply(self, method: str, path: str, headers: dict[str, str], body: Any) -> tuple[int, Any]:
        """Return the status and the body of a response."""
        path = path.partition("?")[0]
        self.requests.append(path)
        if self.down:
            return 503, {"errors": ["sealed"]}
        if method == "POST" and path == "/v1/auth/approle/login":
            return self._signed_in(body)
        bearer = headers.get("x-vault-token") or headers.get("authorization", "")
        if bearer.removeprefix("Bearer ") not in self.tokens:
            azure = path.startswith(("/secrets/", "/keys/"))
            return (401, {}) if azure else (403, {"errors": ["denied"]})
        return self.answer(path, body)

    def answer(self, path: str, _body: Any) -> tuple[int, Any]:
        """Return the response to an authorized request."""
        for form, tell in _FORMS:
            if found := form.fullmatch(path):
                return tell(self.kept.get(found[1]))
        return 404, {"errors": []}

    def _signed_in(self, body: Any) -> tuple[int, Any]:
        if body != {"role_id": ROLE, "secret_id": ROLE_SECRET}:
            return 400, {"errors": ["invalid role or secret ID"]}
        self.tokens.append(f"hvs.{len(self.tokens)}")
        return 200, {"auth": {"client_token": self.tokens[-1], "lease_duration": 60}}


def _vault(kept: Any) -> tuple[int, Any]:
    metadata = {"version": 1, "destroyed": False, "deletion_time": ""}
    fields = {"data": {"data": kept, "metadata": metadata}}
    return (404, {"errors": []}) if kept is None else (200, fields)


def _google(kept: Any) -> tuple[int, Any]:
    if kept is None:
        return 404, {"error": {"code": 404, "message": "not found", "status": "NOT_FOUND"}}
    return 200, {"payload": {"data": base64.b64encode(kept.encode()).decode()}}


def _azure(kept: Any) -> tuple[int, Any]:
    if kept is None:
        return 404, {"error": {"code": "SecretNotFound", "message": "not found"}}
    fields = {"value": kept, "id": "https://v.vault.azure.net/secrets/s/0", "attributes": {}}
    return 200, fields


_FORMS = (
    (re.compile(r"/v1/kv/data/(.+)"), _vault),
    (re.compile(r"/v1/(projects/.+):access"), _google),
    (re.compile(r"/secrets/([^/]+)/[0-9a-f]*"), _azure),
)
_CHALLENGE = (
    'Bearer authorization="https://login.microsoftonline.com/tenant", '
    'resource="https://vault.azure.net"'
)
