"""Why an endpoint says no, in OAuth's own words (RFC 6749 section 5.2 and its later kin)."""


class OAuthError(Exception):
    """A refusal: `code` for programs, a sentence for people, an HTTP status, and headers."""

    def __init__(
        self, code: str, sentence: str, status: int = 400, *headers: tuple[str, str]
    ) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence
        self.status = status
        self.headers = headers


class PageError(Exception):
    """A refusal that is shown to a person, since there is nowhere safe to send them."""

    def __init__(self, sentence: str, status: int = 400) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.status = status


def invalid(sentence: str) -> OAuthError:
    """A request that is not well formed."""
    return OAuthError("invalid_request", sentence)


def invalid_grant(sentence: str) -> OAuthError:
    """A code or token that is not good, or not good here."""
    return OAuthError("invalid_grant", sentence)


def invalid_client(sentence: str) -> OAuthError:
    """A client that is unknown, or does not prove who it is."""
    return OAuthError("invalid_client", sentence, 401)
