"""The HTTP server: h11 and h2 on connections of our own. `limits` has what a connection may take."""
