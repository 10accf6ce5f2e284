"""Definitions of tools and prompts for review: differences, new capabilities, and their pins."""
