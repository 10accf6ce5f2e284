"""The member of a chat request that limits its output tokens."""


def chat_limit_field(*, serves_responses: bool) -> str:
    """Return the name of the member that limits the output tokens of a request.

    A provider of the responses API accepts the current name, and OpenAI's reasoning models reject
    the old one. Other providers are certain to apply only the old name.
    """
    return "max_completion_tokens" if serves_responses else "max_tokens"
