"""OAuth client, based on Authlib, for sign-in providers and servers of upstream tokens."""
