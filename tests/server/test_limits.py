"""limits: the numbers, and how they are divided."""

from server.limits import Limits


def test_what_clients_hold_together_is_divided_among_all_that_they_may_hold() -> None:
    limits = Limits(client_memory=1 << 20)
    parts = limits.state_bytes, limits.request_bytes, limits.reply_bytes
    assert parts == (1 << 19, 1 << 18, 1 << 18)
