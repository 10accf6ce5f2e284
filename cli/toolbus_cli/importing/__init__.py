"""Import of servers from MCP clients, OpenAPI documents, cURL commands and Postman."""
