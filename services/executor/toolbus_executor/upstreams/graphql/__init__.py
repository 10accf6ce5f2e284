"""Upstreams for GraphQL APIs. The schema is the list of tools, and each call is one operation."""

from toolbus_executor.upstreams.graphql.upstream import GraphQLUpstream

__all__ = ["GraphQLUpstream"]
