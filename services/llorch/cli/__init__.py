"""The command line. One file per command; `main` puts them together.

What costs time to import (gRPC, the contract, Rich's tables) is imported inside of the commands, so that `--help`
answers at once.
"""
