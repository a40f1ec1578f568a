"""Files from elsewhere: what may be fetched, from where, and how a whole one comes of it."""
