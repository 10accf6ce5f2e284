"""GraphQL APIs as upstreams: the schema is the list of tools, each call is one operation."""

from toolbus_executor.upstreams.graphql.upstream import GraphQLUpstream

__all__ = ["GraphQLUpstream"]
