"""Call servers with OAuth tokens: shared ones, or one per user."""
