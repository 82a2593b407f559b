"""The one exception for bad input: a message that says which file, table, row or key, what is wrong, and what to do."""


class TapehouseError(Exception):
    """Bad input from the outside (a file, a setting, a table); the command line prints it without a traceback."""
