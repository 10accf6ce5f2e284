"""An OpenID provider that signs in whoever a test says, run as a process of its own.

`python -m harness.oauth.openid_provider PORT`. A POST to /say changes how it behaves: `claims` of
who signs in, `iss` its answer names (null: none), `advertised` whether it promises one, `asks`:
there is a page with a link, for people in front of a browser. POST /mint signs the
claims it is sent; POST /rotate takes another key, /as-ever has it behave as it did at first;
GET /seen tells what it was asked.
It vouches for people elsewhere (ID-JAG) with `word` among the claims, unless `refuses` says why
not, and renews what it said for `seconds`, if `renews`.
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
    """What it knows."""

    def __init__(self, port: int) -> None:
        self.issuer = f"http://127.0.0.1:{port}"
        self.said = self.usual
        self.seen: list[str] = []
        self.codes: dict[str, dict[str, str]] = {}
        self.exchanges: list[dict[str, str]] = []
        self.renewals = 0
        self.rotate()

    @property
    def usual(self) -> dict[str, Any]:
        """How it behaves until it is told otherwise."""
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
        """Sign with a new key, and know the old one no more."""
        self.key = ECKey.generate_key("P-256")

    def signed(self, claims: dict[str, Any], typ: str = "JWT", alg: str = "ES256") -> str:
        """A token."""
        header = {"alg": alg, "typ": typ, "kid": self.key.thumbprint()}
        return jwt.encode(header, claims, self.key, algorithms=[alg])

    def document(self) -> dict[str, Any]:
        """Its metadata."""
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256", "ES256"],
            "authorization_response_iss_parameter_supported": self.said["advertised"],
        }

    def authorized(self, query: dict[str, str]) -> str:
        """Where a browser is sent back."""
        code = f"code-{len(self.codes)}"
        self.codes[code] = query
        fields = {"code": code, "state": query["state"]}
        fields |= {"iss": self.said["iss"]} if self.said["iss"] else {}
        return f"{query['redirect_uri']}?{urlencode(fields)}"

    def token(self, form: dict[str, str], authorization: str) -> dict[str, Any]:
        """The ID token for a code, whoever proves to be the gateway."""
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
        """An ID token of who signed in."""
        now = int(time.time())
        claims = {
            "iss": self.issuer, "aud": CLIENT, "exp": now + self.said["seconds"], "iat": now,
            **more, **self.said["claims"],
        }  # fmt: skip
        fields = {"access_token": "x", "token_type": "Bearer", "id_token": self.signed(claims)}
        again = {"refresh_token": f"again~{self.renewals}"} if self.said["renews"] else {}
        return fields | again

    def word(self, form: dict[str, str]) -> dict[str, Any]:
        """That the gateway may act for who signed in (RFC 8693, ID-JAG)."""
        self.exchanges.append(form)
        token = jwt.decode(form["subject_token"], self.key, algorithms=["ES256"])
        now = int(time.time())
        if token.claims["exp"] <= now or self.said["refuses"]:
            return {"error": self.said["refuses"] or "invalid_grant"}
        claims = {
            "iss": self.issuer, "sub": token.claims["sub"], "aud": form["audience"],
            "resource": form["resource"], "client_id": "gateway-there", "jti": f"{now}",
            "iat": now, "exp": now + 300, **self.said["word"],
        }  # fmt: skip
        signed = self.signed(claims, "oauth-id-jag+jwt")
        return {"access_token": signed, "issued_token_type": ID_JAG, "token_type": "N_A"}


class Handler(BaseHTTPRequestHandler):
    """One request."""

    provider: Provider

    def do_GET(self) -> None:
        """Documents, keys, and the page on which one signs in."""
        target = urlsplit(self.path)
        self.provider.seen.append(target.path)
        if target.path == "/.well-known/openid-configuration":
            self._tell(self.provider.document())
        elif target.path == "/keys":
            self._tell({"keys": [self._public()]})
        elif target.path == "/seen":
            self._tell(self.provider.seen)
        elif target.path == "/exchanges":
            self._tell(self.provider.exchanges)
        elif target.path == "/authorize":
            self._sign_in(self.provider.authorized(dict(parse_qsl(target.query))))
        else:  # a browser looks for an icon
            self.send_error(404)

    def do_POST(self) -> None:
        """Tokens, and a test's wishes."""
        body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        if self.path == "/token":
            form = dict(parse_qsl(body))
            result = self.provider.token(form, self.headers["authorization"])
            self._tell(result, 400 if "error" in result else 200)
        elif self.path == "/mint":
            result = json.loads(body)
            self._tell({"token": self.provider.signed(**result)})
        elif self.path == "/rotate":
            self.provider.rotate()
            self._tell({})
        elif self.path == "/as-ever":
            self.provider.said = self.provider.usual
            self._tell({})
        else:
            self.provider.said |= json.loads(body)
            self._tell({})

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _public(self) -> dict[str, Any]:
        key = self.provider.key
        return {**key.as_dict(private=False), "kid": key.thumbprint(), "use": "sig"}

    def _sign_in(self, back: str) -> None:
        if self.provider.said["asks"]:
            self._send(f'<h1>Corp</h1><a href="{escape(back)}">I am ann</a>', "text/html")
            return
        self.send_response(302)
        self.send_header("location", back)
        self.end_headers()

    def _tell(self, told: Any, status: int = 200) -> None:
        self._send(json.dumps(told), "application/json", status)

    def _send(self, text: str, content_type: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())


if __name__ == "__main__":
    Handler.provider = Provider(int(sys.argv[1]))
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
