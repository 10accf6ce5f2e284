"""An agent that is a real model, with tools in every request or in code mode."""
