"""Parse requests and render pages of the authorization server."""
