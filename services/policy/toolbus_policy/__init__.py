"""The policy service: authorization, budgets, approvals."""
