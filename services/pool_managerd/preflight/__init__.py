"""Whether this machine can do what its settings ask for: reported at the start, and by `llorch doctor`."""
