"""Decide one call: authorize, apply rules, reserve, record the intent, dispatch."""
