"""Budgets, rate limits and loop limits: reservations in Valkey and their settlement."""
