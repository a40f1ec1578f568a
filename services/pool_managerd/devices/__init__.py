"""What this host can compute on: one interface, three kinds of inventory behind it."""
