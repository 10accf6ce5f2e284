"""What other programs keep of HTTP APIs, taken over as servers: documents, cURL lines, Postman."""
