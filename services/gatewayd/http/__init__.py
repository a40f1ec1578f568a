"""The HTTP server: h11 and h2 on connections of our own, with every bound in one place (`limits`)."""
