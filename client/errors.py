"""Errors that tell what became of a request when a connection could not be made, or was lost."""


class UnreachableError(ConnectionError):
    """No connection could be made; later it may."""


class OutcomeUnknownError(ConnectionError):
    """A connection ended when a request that can not be repeated was on its way."""
