"""Encryption: a cipher for a swap file, for disks that are not trusted.

Rules of this file:

* AES-256-XTS (IEEE 1619), as disks have it.  The tweak is the place in the file, so equal bytes
  at different places do not look alike, and a run of frames is decrypted as it was encrypted, or a
  beginning of it.
* Each file has a key of its own, made from the kernel's random numbers and kept nowhere but in
  this object: what is on the disk is lost with the process.
* It hides the bytes; it does not notice that somebody changed them: they decrypt to noise.
* The package ``cryptography`` is imported by this module alone; it releases the GIL while it works.
"""

import os

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes


class Xts:
    """Encrypts and decrypts frames of one file (see :class:`tmpfs_core.swap.Cipher`)."""

    def __init__(self) -> None:
        self._algorithm = algorithms.AES(os.urandom(64))  # two keys of 256 bits: data and tweak

    def encrypt(self, views: list[memoryview], offset: int) -> memoryview:
        result = memoryview(bytearray(sum(map(len, views))))
        at = 0
        for view in views:
            part = result[at : at + len(view)]
            self._cipher(offset + at).encryptor().update_into(view, part)
            at += len(view)
        return result

    def decrypt(self, views: list[memoryview], offset: int) -> None:
        for view in views:
            self._cipher(offset).decryptor().update_into(view, view)
            offset += len(view)

    def _cipher(self, offset: int) -> Cipher[modes.XTS]:
        return Cipher(self._algorithm, modes.XTS(offset.to_bytes(16, "little")))
