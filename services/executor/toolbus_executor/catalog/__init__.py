"""List, pin and publish the definitions of servers."""
