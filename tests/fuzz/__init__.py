"""Raw requests with seeded mutations against every listener of a gateway."""
