"""Parts of results by JMESPath: what a caller asks for is found in a process of its own."""
