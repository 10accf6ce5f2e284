"""What tools, resources and prompts show: a pixel, a moment of silence, blocks of content."""

from .wire import Json

PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9"
    "awAAAABJRU5ErkJggg=="
)
WAV = "UklGRiQAAABXQVZFZm10IBAAAAABAAEARKwAAIhYAQACABAAZGF0YQAAAAA="


def text(words: str) -> Json:
    """A block of text."""
    return {"type": "text", "text": words}


def image() -> Json:
    """A picture."""
    return {"type": "image", "data": PNG, "mimeType": "image/png"}


def audio() -> Json:
    """A sound."""
    return {"type": "audio", "data": WAV, "mimeType": "audio/wav"}


def embedded(uri: str, words: str, mime_type: str = "text/plain") -> Json:
    """A resource inside other content."""
    return {"type": "resource", "resource": {"uri": uri, "mimeType": mime_type, "text": words}}


def said(*blocks: Json | str, is_error: bool = False) -> Json:
    """A tool's result."""
    content = [text(block) if isinstance(block, str) else block for block in blocks]
    return {"content": content, "isError": True} if is_error else {"content": content}


def message(content: Json, role: str = "user") -> Json:
    """One message of a prompt."""
    return {"role": role, "content": content}


def form(sentence: str, **fields: Json) -> Json:
    """A question with fields that must be filled in."""
    request = optional_form(sentence, fields)
    request["params"]["requestedSchema"]["required"] = list(fields)
    return request


def optional_form(sentence: str, fields: Json) -> Json:
    """A question with fields that may be filled in."""
    schema: Json = {"type": "object", "properties": fields, "required": []}
    return {
        "method": "elicitation/create",
        "params": {"message": sentence, "requestedSchema": schema},
    }


def sample(sentence: str, most: int = 100) -> Json:
    """A question to the client's model."""
    params = {"messages": [message(text(sentence))], "maxTokens": most}
    return {"method": "sampling/createMessage", "params": params}


def roots() -> Json:
    """A question for the client's roots."""
    return {"method": "roots/list", "params": {}}


STRING: Json = {"type": "string"}
BOOLEAN: Json = {"type": "boolean"}
NUMBER: Json = {"type": "number"}
