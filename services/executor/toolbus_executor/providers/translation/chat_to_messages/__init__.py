"""Translation for clients of the chat completions API and providers of the messages API."""
