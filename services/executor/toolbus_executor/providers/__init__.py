"""Model providers: requests to their APIs, API keys, usage and charges."""
