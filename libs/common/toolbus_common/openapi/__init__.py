"""Translation of OpenAPI documents into tools: without I/O, limited in size, deterministic."""

from toolbus_common.openapi.api import Api, translated
from toolbus_common.openapi.bodies import Body
from toolbus_common.openapi.document import DocumentError, read
from toolbus_common.openapi.operations import BINDING, Operation, Parameter
from toolbus_common.openapi.security import Scheme

__all__ = [
    "BINDING",
    "Api",
    "Body",
    "DocumentError",
    "Operation",
    "Parameter",
    "Scheme",
    "read",
    "translated",
]
