"""The error for users, as opposed to developers."""


class UserError(Exception):
    """Something the user can fix: bad input, a missing directory, an impossible configuration.

    The message is one line that says what is wrong, where, and what to do. The command line prints it without
    a traceback. A step that raises it ends its run.
    """
