"""Checks by other services: division of long content, cache, circuit breaker, time limits."""
