"""The one error a user sees: what is wrong, where, and what to do, in one line."""


class UserError(Exception):
    """Something the user can mend. The command line prints it as one line and exits with status 2."""
