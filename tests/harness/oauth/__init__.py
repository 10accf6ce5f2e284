"""Authorization servers, OpenID providers and the protected servers behind them."""
