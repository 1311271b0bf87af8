"""The errors that a user can mend."""


class InputError(ValueError):
    """Bad input: the message names what was expected and what came.

    A :class:`ValueError`, so library users need not know it; the command line
    prints its message alone, without a traceback.
    """
