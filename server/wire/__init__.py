"""The 9P2000.L wire format: constants, codec and the declarations of all messages."""
