"""Secrets: the public rules of gitleaks, own rules, and the secrets that Toolbus itself holds."""
