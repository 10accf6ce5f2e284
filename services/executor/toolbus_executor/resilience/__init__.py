"""Protection of each server: concurrency limit, circuit breaker, retries, health probe."""
