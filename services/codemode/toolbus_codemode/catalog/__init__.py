"""Descriptions of tools for programs and models: stubs, signatures, documentation."""
