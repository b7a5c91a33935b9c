"""errors: how an operation is refused."""

import errno

import pytest

from tmpfs_core.errors import refuse


def test_refuse_raises_that_errno_and_says_what_it_means() -> None:
    with pytest.raises(PermissionError, match="Operation not permitted") as caught:
        refuse(errno.EPERM)
    assert caught.value.errno == errno.EPERM
