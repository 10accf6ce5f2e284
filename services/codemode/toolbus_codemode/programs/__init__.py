"""Runs of programs: limits, budget, nested calls, response, events."""
