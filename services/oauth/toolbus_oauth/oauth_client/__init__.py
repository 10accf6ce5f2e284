"""Client of other authorization servers, over Authlib: for sign-ins and for upstream servers."""
