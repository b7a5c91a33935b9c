"""FUSE: a server's files, mounted by a process that answers what the kernel asks.

The kernel's protocol is spoken here without libfuse: whatever it can do can be used (locks that
others see, interrupts), and a request costs one system call to take and one to answer.
"""
