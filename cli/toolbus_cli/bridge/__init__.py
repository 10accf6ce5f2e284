"""Bridge clients that only speak stdio to the HTTP endpoint, in both protocol families."""
