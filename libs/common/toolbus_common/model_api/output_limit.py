"""The member of a chat request that limits its output tokens."""


def chat_limit_field(*, serves_responses: bool) -> str:
    """Return the member, by whether the provider itself serves the responses API.

    A provider of that API knows the current member, and OpenAI's reasoning models refuse the old
    one. Of other providers only the old member is certain to be effective.
    """
    return "max_completion_tokens" if serves_responses else "max_tokens"
