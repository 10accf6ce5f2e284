"""Admission of one call: authorization, rules, reservation, intent, dispatch."""
