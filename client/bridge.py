"""Bridge: a connection to a unix socket, over standard input and output, as ssh carries them."""

import os
import socket
import threading

#: Bytes that are moved at a time; a pipe holds no more.
SIZE = 65536


def bridge(path: str, source: int, target: int) -> None:
    """Move all bytes between two descriptors and a unix socket, until that is closed.

    Raises:
        OSError: nobody listens there, or takes what comes from there.
    """
    with socket.socket(socket.AF_UNIX) as there:
        there.connect(path)
        threading.Thread(target=_send, args=(source, there), daemon=True).start()
        while data := there.recv(SIZE):
            with memoryview(data) as view:
                done = 0
                while done < len(view):
                    done += os.write(target, view[done:])


def _send(source: int, there: socket.socket) -> None:
    while data := os.read(source, SIZE):
        there.sendall(data)
    there.shutdown(socket.SHUT_WR)
