"""Translation of a client of the messages API to the Converse API of Amazon Bedrock."""
