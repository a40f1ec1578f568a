"""Errors of the set-up, for the user at the terminal."""


class SetUpError(Exception):
    """The set-up can't go on; the message says why and what to do."""
