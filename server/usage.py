"""Usage: what users ask for that can not be."""


class ConfigError(Exception):
    """A value that can not be; says which key, which value, and what is allowed."""
