"""Content of tools, resources and prompts: a pixel, a moment of silence, content blocks."""

from .wire import Json

PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9"
    "awAAAABJRU5ErkJggg=="
)
WAV = "UklGRiQAAABXQVZFZm10IBAAAAABAAEARKwAAIhYAQACABAAZGF0YQAAAAA="


def text(words: str) -> Json:
    """Return a text block."""
    return {"type": "text", "text": words}


def image() -> Json:
    """Return an image block."""
    return {"type": "image", "data": PNG, "mimeType": "image/png"}


def audio() -> Json:
    """Return an audio block."""
    return {"type": "audio", "data": WAV, "mimeType": "audio/wav"}


def embedded(uri: str, words: str, mime_type: str = "text/plain") -> Json:
    """Return a resource block."""
    return {"type": "resource", "resource": {"uri": uri, "mimeType": mime_type, "text": words}}


def tool_result(*blocks: Json | str, is_error: bool = False) -> Json:
    """Return a tool's result."""
    content = [text(block) if isinstance(block, str) else block for block in blocks]
    return {"content": content, "isError": True} if is_error else {"content": content}


def message(content: Json, role: str = "user") -> Json:
    """Return one message of a prompt."""
    return {"role": role, "content": content}


def form(question: str, **fields: Json) -> Json:
    """Return an elicitation with required fields."""
    request = optional_form(question, fields)
    request["params"]["requestedSchema"]["required"] = list(fields)
    return request


def optional_form(question: str, fields: Json) -> Json:
    """Return an elicitation with optional fields."""
    schema: Json = {"type": "object", "properties": fields, "required": []}
    return {
        "method": "elicitation/create",
        "params": {"message": question, "requestedSchema": schema},
    }


def sample(question: str, maximum: int = 100) -> Json:
    """Return a sampling request."""
    params = {"messages": [message(text(question))], "maxTokens": maximum}
    return {"method": "sampling/createMessage", "params": params}


def roots() -> Json:
    """Return a request for the client's roots."""
    return {"method": "roots/list", "params": {}}


STRING: Json = {"type": "string"}
BOOLEAN: Json = {"type": "boolean"}
NUMBER: Json = {"type": "number"}
