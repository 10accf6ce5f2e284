"""Render HTML for the pages of several services."""
