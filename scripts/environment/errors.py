"""What can go wrong in the set-up, said to the person at the terminal."""


class SetUpError(Exception):
    """The set-up can't go on; the message says why and what to do."""
