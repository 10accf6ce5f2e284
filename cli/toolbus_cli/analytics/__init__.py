"""Saved queries over audit data, and the HTML report."""
