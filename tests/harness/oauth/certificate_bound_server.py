"""Protected MCP server that requires client certificates and signed caller identities.

Usage: `python certificate_bound_server.py PORT ISSUER GATEWAY CERTIFICATE KEY AUTHORITY`. It
accepts a token only with the certificate that the token is bound to (RFC 8705). It accepts a
request only with a caller identity that PyJWT verifies with the keys of GATEWAY. GET /callers
returns the callers.
"""

import asyncio
import sys
from pathlib import Path
from ssl import CERT_OPTIONAL
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import jwt
from starlette.responses import JSONResponse, Response

from harness.oauth.client_certificates import serve, shown
from harness.oauth.protected_server import Introspecting, server_of


class Checking:
    """Middleware that checks certificates and caller identities before the SDK."""

    def __init__(self, app: Any, asks: Introspecting, url: str, gateway: str) -> None:
        self._app, self._verifier, self._url, self._gateway = app, asks, url, gateway
        self._keys = jwt.PyJWKClient(f"{gateway}/oauth/identity-keys")
        self._callers: list[dict[str, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == "/callers":
            await JSONResponse(self._callers)(scope, receive, send)
        elif scope["type"] != "http" or scope["path"] != "/mcp" or await self._fine(scope):
            await self._app(scope, receive, send)
        else:
            await Response(status_code=403)(scope, receive, send)

    async def _fine(self, scope: Any) -> bool:
        headers = dict(scope["headers"])
        token = headers.get(b"authorization", b"").decode().removeprefix("Bearer ")
        known = await self._verifier.introspect(token) if token else {}
        if not shown(scope) or (known and known["certificate"] != shown(scope)):
            return False
        names = [value.decode() for name, value in scope["headers"] if name == b"toolbus-identity"]
        try:
            claims = await asyncio.to_thread(self._read, ", ".join(names))
        except jwt.PyJWTError:
            return False
        self._callers.append(claims)
        return True

    def _read(self, token: str) -> dict[str, Any]:
        key = self._keys.get_signing_key_from_jwt(token)
        result: dict[str, Any] = jwt.decode(
            token, key, algorithms=["ES256"], audience=self._url, issuer=self._gateway
        )
        return result


def main(port: int, issuer: str, gateway: str, files: list[str]) -> None:
    """Serve until the process is killed."""
    asks, url = Introspecting(issuer, files[2]), f"https://localhost:{port}/mcp"
    inner = server_of(asks, issuer, url, []).streamable_http_app()
    asyncio.run(serve(Checking(inner, asks, url, gateway), files, (port, CERT_OPTIONAL)))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:])
