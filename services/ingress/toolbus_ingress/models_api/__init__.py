"""Models for agents: the APIs of OpenAI and Anthropic, with governed calls to providers."""
