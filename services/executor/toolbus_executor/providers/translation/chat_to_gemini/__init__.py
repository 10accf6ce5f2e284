"""Translation of a client of the chat completions API to the API of Gemini."""
