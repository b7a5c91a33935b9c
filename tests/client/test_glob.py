"""glob: what patterns match."""

import pytest

from client.filesystem import FileSystem
from client.glob import expand


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("/plain", ["/plain"]),
        ("/*", ["/a", "/b"]),
        ("*", ["a", "b"]),
        ("/.*", ["/.hidden"]),
        ("/a/?.txt", ["/a/1.txt", "/a/2.txt"]),
        ("/a/[!1].txt", ["/a/2.txt"]),
        ("/*/1.txt", ["/a/1.txt", "/b/1.txt"]),
        ("/*/2.txt/", ["/a/2.txt"]),
        ("/?/*.none", ["/?/*.none"]),
        ("/a/1.txt/*", ["/a/1.txt/*"]),
        ("", [""]),
    ],
)
async def test_patterns(fs: FileSystem, pattern: str, paths: list[str]) -> None:
    for name in ("/a/1.txt", "/a/2.txt", "/b/1.txt", "/.hidden/x"):
        await fs.makedirs(name.rpartition("/")[0], exist_ok=True)
        await fs.write_bytes(name, b"")
    assert await expand(fs, pattern) == paths
