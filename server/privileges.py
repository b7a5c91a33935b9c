"""Privileges: what a server that root has started gives up before its first client.

Rules of this file:

* It is for good: real, effective and saved ids change, so that nothing can be taken back.
* No capability is left, for the kernel takes them all from who ceases to be root (capabilities(7)).
"""

import os
import pwd

from .usage import ConfigError


def drop(user: pwd.struct_passwd) -> None:
    """Become this user, with his groups; nothing changes for who is.

    Raises:
        ConfigError: only root can.
    """
    if os.getuid() == os.geteuid() == user.pw_uid:
        return
    try:
        os.setgroups(os.getgrouplist(user.pw_name, user.pw_gid))
        os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
        os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    except PermissionError:
        raise ConfigError(f"--user: {user.pw_name}: only root can become another user") from None
