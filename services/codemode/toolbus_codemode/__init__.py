"""The codemode service: catalogue tools, and programs that call tools."""
