"""Faults of an installation with replicas: the installation, the faults, the account, the page."""
