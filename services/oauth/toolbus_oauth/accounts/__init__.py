"""Sign-in of people: local accounts, OpenID providers, access rules."""
