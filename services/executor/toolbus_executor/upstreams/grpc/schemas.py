"""JSON Schema of Protobuf messages, according to Protobuf's JSON mapping."""

from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

MAX_MESSAGES = 200  # message types in the schema of one tool
_ANY: dict[str, Any] = {}
_LONG = {"type": ["string", "integer"]}  # many JSON parsers lose digits of 64-bit numbers
_KINDS: dict[int, dict[str, Any]] = {
    FieldDescriptor.CPPTYPE_INT32: {"type": "integer"},
    FieldDescriptor.CPPTYPE_UINT32: {"type": "integer", "minimum": 0},
    FieldDescriptor.CPPTYPE_INT64: _LONG,
    FieldDescriptor.CPPTYPE_UINT64: _LONG,
    FieldDescriptor.CPPTYPE_DOUBLE: {"type": ["number", "string"]},  # "NaN", "Infinity"
    FieldDescriptor.CPPTYPE_FLOAT: {"type": ["number", "string"]},
    FieldDescriptor.CPPTYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.CPPTYPE_STRING: {"type": "string"},
}
_BASE64 = {"type": "string", "contentEncoding": "base64"}
_KNOWN: dict[str, dict[str, Any]] = {
    "Timestamp": {"type": "string", "format": "date-time"},
    "Duration": {"type": "string", "description": "Seconds, as 1.5s"},
    "FieldMask": {"type": "string", "description": "Field paths, separated by commas"},
    "Struct": {"type": "object"},
    "ListValue": {"type": "array"},
    "Value": _ANY,
    "Any": {"type": "object", "properties": {"@type": {"type": "string"}}, "required": ["@type"]},
    "Empty": {"type": "object", "additionalProperties": False},
    "BoolValue": {"type": ["boolean", "null"]},
    "StringValue": {"type": ["string", "null"]},
    "BytesValue": {"type": ["string", "null"], "contentEncoding": "base64"},
    "Int32Value": {"type": ["integer", "null"]},
    "UInt32Value": {"type": ["integer", "null"]},
    "Int64Value": {"type": ["string", "integer", "null"]},
    "UInt64Value": {"type": ["string", "integer", "null"]},
    "FloatValue": {"type": ["number", "string", "null"]},
    "DoubleValue": {"type": ["number", "string", "null"]},
}
_PACKAGE = "google.protobuf."


class TooManyError(Exception):
    """A method cannot be a tool because of its request message. The message is the reason."""


def schema_of(message: Descriptor) -> dict[str, Any]:
    """Return the schema of a request message. Nested messages are referenced by name.

    Raises:
        TooManyError: the request is not an object, or refers to too many messages.

    """
    definitions: dict[str, Any] = {}
    known = _known(message)
    root = known if known is not None else _object(message, definitions)
    if root.get("type") != "object":
        raise TooManyError("its request is not a message with fields")
    return root | ({"$defs": definitions} if definitions else {})


def _object(message: Descriptor, definitions: dict[str, Any]) -> dict[str, Any]:
    required = [each.json_name for each in message.fields if each.is_required]
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {each.json_name: _field(each, definitions) for each in message.fields},
        "additionalProperties": False,
    }
    return schema | ({"required": required} if required else {})


def _field(field: FieldDescriptor, definitions: dict[str, Any]) -> dict[str, Any]:
    of = field.message_type
    if of is not None and of.GetOptions().map_entry:
        value = _single(of.fields_by_name["value"], definitions)
        return {"type": "object", "additionalProperties": value}
    single = _single(field, definitions)
    return {"type": "array", "items": single} if field.is_repeated else single


def _single(field: FieldDescriptor, definitions: dict[str, Any]) -> dict[str, Any]:
    if field.enum_type is not None:
        if field.enum_type.full_name == f"{_PACKAGE}NullValue":
            return {"type": "null"}
        return {"enum": [each.name for each in field.enum_type.values]}
    if field.message_type is not None:
        known = _known(field.message_type)
        return dict(known) if known is not None else _reference(field.message_type, definitions)
    return dict(_BASE64 if field.type == FieldDescriptor.TYPE_BYTES else _KINDS[field.cpp_type])


def _reference(message: Descriptor, definitions: dict[str, Any]) -> dict[str, Any]:
    name = message.full_name
    if name not in definitions:
        if len(definitions) >= MAX_MESSAGES:
            raise TooManyError(f"its request refers to more than {MAX_MESSAGES} messages")
        definitions[name] = {}
        definitions[name] = _object(message, definitions)
    return {"$ref": f"#/$defs/{name}"}


def _known(message: Descriptor) -> dict[str, Any] | None:
    if not message.full_name.startswith(_PACKAGE):
        return None
    return _KNOWN.get(message.full_name.removeprefix(_PACKAGE))
