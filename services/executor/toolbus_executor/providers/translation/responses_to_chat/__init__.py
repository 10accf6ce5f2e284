"""Translation for clients of the responses API and providers of the chat completions API."""
