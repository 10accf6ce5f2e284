"""The bridge for clients that only speak stdio: lines here, HTTP there, in both protocol eras."""
