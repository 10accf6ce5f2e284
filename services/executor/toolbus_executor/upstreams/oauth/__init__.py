"""Call servers with OAuth tokens: shared ones, or each user's own."""
