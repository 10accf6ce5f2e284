"""Translation for clients of the messages API and providers of the chat completions API."""
