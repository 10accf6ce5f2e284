"""A GraphQL API as an upstream: its schema is its list of tools, each call one operation."""

from toolbus_executor.upstreams.graphql.upstream import GraphQLUpstream

__all__ = ["GraphQLUpstream"]
