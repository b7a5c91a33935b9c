"""What runs inside the guest: its first programs, and the tests of the mounted file system."""
