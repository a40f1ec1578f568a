"""What an output has to look like: bounds on what clients may ask for, and GBNF as the matcher understands it."""
