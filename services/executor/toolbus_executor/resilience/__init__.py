"""Protect each server: concurrency limits, circuit breaker, retries, health probe."""
