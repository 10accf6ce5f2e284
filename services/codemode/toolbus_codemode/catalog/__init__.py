"""Describe tools to programs and models: stubs, signatures, documentation."""
