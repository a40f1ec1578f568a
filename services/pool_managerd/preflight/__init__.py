"""Whether this machine can do what its settings ask of it: told at the start, and by `llorch doctor`."""
