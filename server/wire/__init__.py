"""The wire format of 9P: constants, codec and the declarations of all messages."""
