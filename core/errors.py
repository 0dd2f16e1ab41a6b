"""The one error that is addressed to the user rather than to a developer."""


class UserError(Exception):
    """Something the user can mend: bad input, a missing directory, an impossible configuration.

    The message is one line that says what was wrong, where, and what to do. The command line prints
    it without a traceback; a step that raises it ends its run.
    """
