"""A GraphQL schema as its server tells of it: read from an introspection, bounded, and pure."""

from dataclasses import dataclass, field

import msgspec

MOST_TYPES = 5_000
DEEPEST_TYPE = 8  # lists and "never null" around one name
# Three levels of wrapping more than anybody writes; older servers refuse deeper questions.
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
    """What a server says of its schema cannot be used; the text says why."""


class Ref(msgspec.Struct, rename="camel"):
    """A type where it is used: a name, or a list or "never null" around another."""

    kind: str
    name: str | None = None
    of_type: "Ref | None" = None

    @property
    def required(self) -> bool:
        """Whether null is no value of it."""
        return self.kind == "NON_NULL"

    @property
    def bare(self) -> "Ref":
        """The same without "never null" around it."""
        return self.of_type if self.kind == "NON_NULL" and self.of_type is not None else self

    @property
    def base(self) -> str:
        """The name within all lists."""
        found: Ref | None = self
        while found is not None and found.of_type is not None:
            found = found.of_type
        return (found.name if found is not None else None) or ""

    def written(self) -> str:
        """The type as a document has it."""
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
        """Whether it has to be given."""
        return self.type.required and self.default_value is None


class Field(msgspec.Struct, rename="camel"):
    """A field of an object."""

    name: str
    type: Ref
    args: list[Given] = []
    description: str | None = None

    @property
    def selectable(self) -> bool:
        """Whether it can be asked for without arguments."""
        return not any(each.required for each in self.args)


class _Named(msgspec.Struct):
    name: str


class Type(msgspec.Struct, rename="camel"):
    """A named type."""

    kind: str
    name: str
    description: str | None = None
    fields: list[Field] | None = None
    input_fields: list[Given] | None = None
    enum_values: list[_Named] | None = None
    possible_types: list[_Named] | None = None

    @property
    def is_leaf(self) -> bool:
        """Whether its values hold no fields."""
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
    """A whole schema, by the names of its types."""

    named: dict[str, Type]
    roots: dict[str, str] = field(default_factory=dict)  # operation -> its type

    def of(self, ref: Ref) -> Type:
        """The named type within a reference. Raises `SchemaError`."""
        return self.called(ref.base)

    def called(self, name: str) -> Type:
        """The type of a name. Raises `SchemaError`."""
        found = self.named.get(name)
        if found is None:
            raise SchemaError(f"the schema does not say what {name[:64] or 'a type'} is")
        return found

    def fields(self, operation: str) -> list[Field]:
        """The fields of a root; none where there is no such root."""
        root = self.roots.get(operation)
        return self.called(root).fields or [] if root else []


_answer = msgspec.json.Decoder(_Answer).decode


def types_in(body: bytes) -> Types:
    """The schema in the answer to an introspection. Raises `SchemaError`."""
    try:
        told = _answer(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SchemaError("the answer to the introspection has not the form it must") from error
    if told.data is None:
        raise SchemaError("the server does not answer introspection; have it switched on")
    schema = told.data.schema
    if len(schema.types) > MOST_TYPES:
        raise SchemaError(f"the schema has more than {MOST_TYPES} types")
    roots = {
        "query": schema.query_type,
        "mutation": schema.mutation_type,
        "subscription": schema.subscription_type,
    }
    named = {name: each.name for name, each in roots.items() if each is not None}
    return Types({each.name: each for each in schema.types}, named)
