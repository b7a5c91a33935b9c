"""The server under a real Linux kernel: what programs and people see of it through a mount."""
