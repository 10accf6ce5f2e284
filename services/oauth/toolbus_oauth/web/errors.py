"""Errors of the OAuth endpoints and pages (RFC 6749 section 5.2 and its extensions)."""


class OAuthError(Exception):
    """OAuth error response: a code for programs, a message for people, HTTP status and headers."""

    def __init__(
        self, code: str, message: str, status: int = 400, *headers: tuple[str, str]
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.headers = headers


class PageError(Exception):
    """Error that is shown as a page, because a redirect of the browser is not safe."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


def invalid(message: str) -> OAuthError:
    """Return the error for a malformed request."""
    return OAuthError("invalid_request", message)


def invalid_grant(message: str) -> OAuthError:
    """Return the error for a code or token that is invalid, or not valid at this resource."""
    return OAuthError("invalid_grant", message)


def invalid_client(message: str) -> OAuthError:
    """Return the error for a client that is unknown or not authenticated."""
    return OAuthError("invalid_client", message, 401)
