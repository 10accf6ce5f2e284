"""Services that check content, and the parts that ask them."""
