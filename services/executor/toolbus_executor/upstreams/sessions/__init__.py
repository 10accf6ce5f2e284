"""Keep sessions at servers: whose each is, how many there are, and which executor holds them."""
