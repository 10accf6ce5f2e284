"""Saved questions to the evidence, and the report made of some of them."""
