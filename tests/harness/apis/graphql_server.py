"""GraphQL server for tests.

Usage: `python -m harness.apis.graphql_server PORT`.
"""

import sys
from typing import Any

import uvicorn
from graphql import build_schema, graphql
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

SCHEMA = build_schema('''
"""Reads what there is."""
type Query {
  "A book by its id."
  book(id: ID!): Book
  books(filter: Filter, first: Int = 10, genres: [Genre!]): [Book!]!
  search(select: String!): [Found!]!
  count: Int!
  fail(secret: Boolean): String
  needy: Needy
}
type Mutation { addBook(input: NewBook!): Book!  count: Int! }
type Subscription { added: Book }
type Book { id: ID!  title: String!  genre: Genre  author: Author!  similar(to: Int!): [Book] }
type Author { name: String!  books: [Book!]! }
type Needy { only(with: Int!): String }
union Found = Book | Author
enum Genre { NOVEL ESSAY }
input Filter { title: String  any: [Filter!]  genre: Genre }
input NewBook { title: String!  genre: Genre = NOVEL  author: String! }
''')
AUTHOR: dict[str, Any] = {"__typename": "Author", "name": "Ursula"}
BOOK = {"__typename": "Book", "id": "1", "title": "Tehanu", "genre": "NOVEL", "author": AUTHOR}
AUTHOR["books"] = [BOOK]


class Shop:
    """The resolvers; `operations` stores the received operations."""

    def __init__(self) -> None:
        self.operations: list[dict[str, Any]] = []
        self.authorization = ""

    def book(self, _info: Any, id: str) -> Any:  # noqa: A002
        return BOOK if id == "1" else None

    def books(self, _info: Any, **_given: Any) -> Any:
        return [BOOK]

    def search(self, _info: Any, select: str) -> Any:  # noqa: ARG002
        return [BOOK, AUTHOR]

    def count(self, _info: Any) -> int:
        return len(self.operations)

    def fail(self, _info: Any, secret: bool = False) -> str:  # noqa: FBT001, FBT002
        raise ValueError(f"No stock {self.authorization if secret else ''}".strip())

    def addBook(self, _info: Any, input: dict[str, Any]) -> Any:  # noqa: A002, N802
        return BOOK | {"title": input["title"], "genre": input["genre"]}

    async def received(self, request: Request) -> Response:
        """Return the received operations, without introspection queries."""
        del request
        return JSONResponse(self.operations)

    async def traced(self, request: Request) -> Response:
        """Return the trace context of the latest request."""
        del request
        return JSONResponse(self.trace)

    async def answer(self, request: Request) -> Response:
        """Execute one operation."""
        body = await request.json()
        if "__schema" not in body["query"]:
            self.operations.append(body)
        self.trace = request.headers.get("traceparent", "")
        self.authorization = request.headers.get("authorization", "")
        found = await graphql(
            SCHEMA, body["query"], root_value=self, variable_values=body.get("variables")
        )
        return JSONResponse(found.formatted)


if __name__ == "__main__":
    shop = Shop()
    routes = [
        Route("/graphql", shop.answer, methods=["POST"]),
        Route("/asked", shop.received),
        Route("/trace", shop.traced),
    ]
    uvicorn.run(Starlette(routes=routes), port=int(sys.argv[1]), log_level="warning")
