"""How `make` sets a checkout up: a virtual environment, the packages, the engine for this machine."""
