"""The one error of the tools; apart, so that it needs no tool to import."""


class BookError(Exception):
    """Something a person must mend; the message names it and says how."""
