"""The pages of recorded events: analytics, SQL, search, evidence, and legal holds."""
