"""The guest's end of the console: it runs scripts for the host, one at a time.

A line with the path of a script comes in; its exit status and its output go back as a line of JSON.
Lines to the guest must be short: this console never recovers from a full input buffer. The output
is collected in a file, so that a process which a script leaves behind cannot hold up the answer.
"""

import json
import subprocess
import tempfile
import tty

CONSOLE = "/dev/tty1"


def main() -> None:
    with open(CONSOLE, "rb") as requests, open(CONSOLE, "wb") as replies:
        tty.setraw(requests.fileno())
        replies.write(b"ready\n")
        replies.flush()
        for line in requests:
            with tempfile.TemporaryFile() as output:
                command = ["bash", "-euo", "pipefail", line.decode().rstrip("\n")]
                process = subprocess.Popen(
                    command, cwd="/tmp", stdin=subprocess.DEVNULL, stdout=output, stderr=output
                )
                status = process.wait()
                output.seek(0)
                text = output.read().decode(errors="backslashreplace")
            replies.write(json.dumps([status, text]).encode() + b"\n")
            replies.flush()


main()
