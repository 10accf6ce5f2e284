"""OpenID provider as a separate process. It signs in any test user.

Usage: `python -m harness.oauth.openid_provider PORT`.

POST /say sets `claims` of the user, `iss` of the redirect (null: none), `advertised` (whether the
metadata promises `iss`), and `asks` (whether to show a page with a link instead of a redirect).
POST /mint signs claims. POST /rotate replaces the key. POST /as-ever resets the behaviour. GET
/seen returns the received requests.

The provider issues ID-JAG assertions with the claims `word`, unless `refuses` contains an error. If
`renews` is set, it renews ID tokens; they are valid for `seconds`.
"""

import hmac
import json
import sys
import time
from base64 import b64decode, urlsafe_b64encode
from hashlib import sha256
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ID_JAG = "urn:ietf:params:oauth:token-type:id-jag"
CLIENT, SECRET = "gateway", "the-secret-of-the-gateway"


class Provider:
    """The state of the provider."""

    def __init__(self, port: int) -> None:
        self.issuer = f"http://127.0.0.1:{port}"
        self.behaviour = self.usual
        self.seen: list[str] = []
        self.codes: dict[str, dict[str, str]] = {}
        self.exchanges: list[dict[str, str]] = []
        self.renewals = 0
        self.rotate()

    @property
    def usual(self) -> dict[str, Any]:
        """The default behaviour."""
        return {
            "claims": {"sub": "s-1", "login": "ann", "groups": ["staff"]},
            "iss": self.issuer,
            "advertised": True,
            "asks": False,
            "seconds": 600,
            "renews": False,
            "refuses": "",
            "word": {},
        }

    def rotate(self) -> None:
        """Replace the signing key, and delete the old key."""
        self.key = ECKey.generate_key("P-256")

    def signed(self, claims: dict[str, Any], typ: str = "JWT", alg: str = "ES256") -> str:
        """Return a signed token."""
        header = {"alg": alg, "typ": typ, "kid": self.key.thumbprint()}
        return jwt.encode(header, claims, self.key, algorithms=[alg])

    def document(self) -> dict[str, Any]:
        """Return the metadata."""
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256", "ES256"],
            "authorization_response_iss_parameter_supported": self.behaviour["advertised"],
        }

    def authorized(self, query: dict[str, str]) -> str:
        """Return the URL of the redirect."""
        code = f"code-{len(self.codes)}"
        self.codes[code] = query
        fields = {"code": code, "state": query["state"]}
        fields |= {"iss": self.behaviour["iss"]} if self.behaviour["iss"] else {}
        return f"{query['redirect_uri']}?{urlencode(fields)}"

    def token(self, form: dict[str, str], authorization: str) -> dict[str, Any]:
        """Return the ID token for a code. The gateway must authenticate."""
        pair = b64decode(authorization.removeprefix("Basic ")).decode()
        assert hmac.compare_digest(pair, f"{CLIENT}:{SECRET}")
        if form["grant_type"] == EXCHANGE:
            return self.word(form)
        if form["grant_type"] == "refresh_token":
            assert form["refresh_token"] == f"again~{self.renewals}"
            self.renewals += 1
            return self.signed_in({})
        request = self.codes.pop(form["code"])
        digest = urlsafe_b64encode(sha256(form["code_verifier"].encode()).digest()).rstrip(b"=")
        assert hmac.compare_digest(digest.decode(), request["code_challenge"])
        assert form["redirect_uri"] == request["redirect_uri"]
        return self.signed_in({"nonce": request["nonce"]})

    def signed_in(self, more: dict[str, str]) -> dict[str, Any]:
        """Return an ID token of the signed-in user."""
        now = int(time.time())
        claims = {
            "iss": self.issuer, "aud": CLIENT, "exp": now + self.behaviour["seconds"], "iat": now,
            **more, **self.behaviour["claims"],
        }  # fmt: skip
        fields = {"access_token": "x", "token_type": "Bearer", "id_token": self.signed(claims)}
        again = {"refresh_token": f"again~{self.renewals}"} if self.behaviour["renews"] else {}
        return fields | again

    def word(self, form: dict[str, str]) -> dict[str, Any]:
        """Return an assertion that the gateway may act for the user (RFC 8693, ID-JAG)."""
        self.exchanges.append(form)
        token = jwt.decode(form["subject_token"], self.key, algorithms=["ES256"])
        now = int(time.time())
        if token.claims["exp"] <= now or self.behaviour["refuses"]:
            return {"error": self.behaviour["refuses"] or "invalid_grant"}
        claims = {
            "iss": self.issuer, "sub": token.claims["sub"], "aud": form["audience"],
            "resource": form["resource"], "client_id": "gateway-there", "jti": f"{now}",
            "iat": now, "exp": now + 300, **self.behaviour["word"],
        }  # fmt: skip
        signed = self.signed(claims, "oauth-id-jag+jwt")
        return {"access_token": signed, "issued_token_type": ID_JAG, "token_type": "N_A"}


class Handler(BaseHTTPRequestHandler):
    """The HTTP handler."""

    provider: Provider

    def do_GET(self) -> None:
        """Respond to requests for metadata, keys and the sign-in page."""
        target = urlsplit(self.path)
        self.provider.seen.append(target.path)
        if target.path == "/.well-known/openid-configuration":
            self._send_json(self.provider.document())
        elif target.path == "/keys":
            self._send_json({"keys": [self._public()]})
        elif target.path == "/seen":
            self._send_json(self.provider.seen)
        elif target.path == "/exchanges":
            self._send_json(self.provider.exchanges)
        elif target.path == "/authorize":
            self._sign_in(self.provider.authorized(dict(parse_qsl(target.query))))
        else:  # browsers request an icon
            self.send_error(404)

    def do_POST(self) -> None:
        """Respond to token requests and control requests."""
        body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        if self.path == "/token":
            form = dict(parse_qsl(body))
            result = self.provider.token(form, self.headers["authorization"])
            self._send_json(result, 400 if "error" in result else 200)
        elif self.path == "/mint":
            result = json.loads(body)
            self._send_json({"token": self.provider.signed(**result)})
        elif self.path == "/rotate":
            self.provider.rotate()
            self._send_json({})
        elif self.path == "/as-ever":
            self.provider.behaviour = self.provider.usual
            self._send_json({})
        else:
            self.provider.behaviour |= json.loads(body)
            self._send_json({})

    def log_message(self, *_: Any) -> None:
        """Suppress the log."""

    def _public(self) -> dict[str, Any]:
        key = self.provider.key
        return {**key.as_dict(private=False), "kid": key.thumbprint(), "use": "sig"}

    def _sign_in(self, back: str) -> None:
        if self.provider.behaviour["asks"]:
            self._send(f'<h1>Corp</h1><a href="{escape(back)}">I am ann</a>', "text/html")
            return
        self.send_response(302)
        self.send_header("location", back)
        self.end_headers()

    def _send_json(self, value: Any, status: int = 200) -> None:
        self._send(json.dumps(value), "application/json", status)

    def _send(self, text: str, content_type: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())


if __name__ == "__main__":
    Handler.provider = Provider(int(sys.argv[1]))
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
