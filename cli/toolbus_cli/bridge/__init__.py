"""Bridge between stdio clients and the HTTP endpoint, for both protocol families."""
