"""The shape of every message: a frozen model, and for calls a raw JSON body nobody re-reads."""

from typing import ClassVar, Self, cast

from pydantic import BaseModel, ConfigDict


class Message(BaseModel):
    """A message on the bus. Released messages only gain fields with defaults.

    On the wire: the model as one line of JSON and, where `BODY` names a field, a newline and
    that field's bytes as they are. The body is JSON another room will read, so it is neither
    decoded nor escaped on the way.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    BODY: ClassVar[str | None] = None

    def encode(self) -> bytes:
        """The bytes on the wire."""
        head = self.__pydantic_serializer__.to_json(self)
        if self.BODY is None:
            return head
        body: bytes = self.__dict__[self.BODY]
        return b"%b\n%b" % (head, body)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read the wire form.

        Raises:
            pydantic.ValidationError: the head is not this contract.

        """
        if cls.BODY is None:
            return cast("Self", cls.__pydantic_validator__.validate_json(data))
        head, _, body = data.partition(b"\n")
        message: Self = cls.__pydantic_validator__.validate_json(head)
        # The model is frozen for its readers; its own decoder may still finish building it.
        message.__dict__[cls.BODY] = body
        return message
