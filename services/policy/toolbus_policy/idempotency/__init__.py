"""Claim idempotency keys, and replay the results of calls that carry one."""
