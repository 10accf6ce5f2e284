"""Complete gateways, load on gateways, and failures of gateways."""
