"""What this node answers to calls: thin, convert and hand on."""
