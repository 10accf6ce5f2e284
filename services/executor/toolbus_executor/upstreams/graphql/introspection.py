"""Parser of a GraphQL schema from the result of an introspection, within limits."""

from dataclasses import dataclass, field

import msgspec

MAX_TYPES = 5_000
DEEPEST_TYPE = 8  # nested list and non-null types
# Schemas in practice are less deep than this, and older servers reject deeper queries.
_REF = "kind name ofType{" * 7 + "kind name" + "}" * 7
INTROSPECTION = (
    "query IntrospectionQuery{__schema{queryType{name}mutationType{name}subscriptionType{name}"
    "types{kind name description fields(includeDeprecated:false){name description "
    "args{...Given}type{...Ref}}inputFields{...Given}enumValues(includeDeprecated:true){name}"
    "possibleTypes{name}}}}"
    f"fragment Ref on __Type{{{_REF}}}"
    "fragment Given on __InputValue{name description type{...Ref}defaultValue}"
)


class SchemaError(Exception):
    """A server's schema cannot be used. The message is the reason."""


class Ref(msgspec.Struct, rename="camel"):
    """A reference to a type: a name, or a list or non-null type that contains another reference."""

    kind: str
    name: str | None = None
    of_type: "Ref | None" = None

    @property
    def required(self) -> bool:
        """Whether the type does not allow null."""
        return self.kind == "NON_NULL"

    @property
    def bare(self) -> "Ref":
        """The type without an outer non-null type."""
        return self.of_type if self.kind == "NON_NULL" and self.of_type is not None else self

    @property
    def base(self) -> str:
        """The name of the innermost type; empty if it has none."""
        found: Ref | None = self
        while found is not None and found.of_type is not None:
            found = found.of_type
        return (found.name if found is not None else None) or ""

    def written(self) -> str:
        """Return the type in GraphQL syntax."""
        if self.kind == "NON_NULL" and self.of_type is not None:
            return f"{self.of_type.written()}!"
        if self.kind == "LIST" and self.of_type is not None:
            return f"[{self.of_type.written()}]"
        return self.name or ""


class Given(msgspec.Struct, rename="camel"):
    """An argument, or a field of an input object."""

    name: str
    type: Ref
    description: str | None = None
    default_value: str | None = None

    @property
    def required(self) -> bool:
        """Whether every call must contain a value."""
        return self.type.required and self.default_value is None


class Field(msgspec.Struct, rename="camel"):
    """A field of an object."""

    name: str
    type: Ref
    args: list[Given] = []
    description: str | None = None

    @property
    def selectable(self) -> bool:
        """Whether the field needs no arguments."""
        return not any(each.required for each in self.args)


class _Named(msgspec.Struct):
    name: str


class Type(msgspec.Struct, rename="camel"):
    """A type with a name."""

    kind: str
    name: str
    description: str | None = None
    fields: list[Field] | None = None
    input_fields: list[Given] | None = None
    enum_values: list[_Named] | None = None
    possible_types: list[_Named] | None = None

    @property
    def is_leaf(self) -> bool:
        """Whether values of the type have no fields."""
        return self.kind in ("SCALAR", "ENUM")


class _Schema(msgspec.Struct, rename="camel"):
    types: list[Type]
    query_type: _Named | None = None
    mutation_type: _Named | None = None
    subscription_type: _Named | None = None


class _Data(msgspec.Struct):
    schema: _Schema = msgspec.field(name="__schema")


class _Answer(msgspec.Struct):
    data: _Data | None = None


@dataclass(frozen=True, slots=True)
class Types:
    """A schema, with its types by name."""

    named: dict[str, Type]
    roots: dict[str, str] = field(default_factory=dict)  # root type of each kind of operation

    def of(self, ref: Ref) -> Type:
        """Return the innermost type of a reference. Raises `SchemaError`."""
        return self.called(ref.base)

    def called(self, name: str) -> Type:
        """Return the type with this name. Raises `SchemaError`."""
        found = self.named.get(name)
        if found is None:
            raise SchemaError(f"the schema does not define {name[:64] or 'a type'}")
        return found

    def fields(self, operation: str) -> list[Field]:
        """Return the fields of the root type for this kind of operation. Raises `SchemaError`."""
        root = self.roots.get(operation)
        return self.called(root).fields or [] if root else []


_answer = msgspec.json.Decoder(_Answer).decode


def types_in(body: bytes) -> Types:
    """Return the schema in the response to an introspection query. Raises `SchemaError`."""
    try:
        response = _answer(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SchemaError("the response to the introspection is malformed") from error
    if response.data is None:
        raise SchemaError("the server does not support introspection; enable it there")
    schema = response.data.schema
    if len(schema.types) > MAX_TYPES:
        raise SchemaError(f"the schema has more than {MAX_TYPES} types")
    roots = {
        "query": schema.query_type,
        "mutation": schema.mutation_type,
        "subscription": schema.subscription_type,
    }
    named = {name: each.name for name, each in roots.items() if each is not None}
    return Types({each.name: each for each in schema.types}, named)
