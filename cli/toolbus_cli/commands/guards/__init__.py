"""Commands about guards: list and test them, and show what they checked."""
