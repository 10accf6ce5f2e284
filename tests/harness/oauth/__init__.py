"""Authorization servers, OpenID providers and protected servers."""
