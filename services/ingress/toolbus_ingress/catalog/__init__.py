"""The tools, prompts and resources that a key can see."""
