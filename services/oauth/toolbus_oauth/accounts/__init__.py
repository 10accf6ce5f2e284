"""Sign people in: local accounts, OpenID providers, access rules."""
