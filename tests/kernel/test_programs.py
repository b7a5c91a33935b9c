"""Ordinary programs that do their work on a mount: git, tar, a compiler, sqlite."""

from typing import Any

import pytest

from .uml import Guest, Server

pytestmark = pytest.mark.kernel

every_cache = pytest.mark.parametrize("cache", ["none", "mmap", "loose"])

UNIX: dict[str, Any] = {"version": "9p2000.u", "access": "user"}
PLAIN: dict[str, Any] = {"version": "9p2000", "access": "user"}
CACHES = [pytest.param({"cache": cache}, id=cache) for cache in ("none", "mmap", "loose")]
OLD = [
    pytest.param({"cache": cache, **dialect}, id=f"{dialect['version']}-{cache}")
    for dialect in (UNIX, PLAIN)
    for cache in ("none", "mmap", "loose")
]

# A tree of some hundred files of the host's Python, with links, modes and old times.
MAKE_TREE = """
rm -rf /tmp/tree; mkdir /tmp/tree; cd /tmp/tree
library=$(dirname $(/usr/bin/python3 -c 'import os; print(os.__file__)'))
cp -r --preserve=timestamps $library/*.py $library/asyncio $library/encodings .
ln os.py hard_link; ln -s os.py link; ln -s nowhere dangling; ln -s ../.. asyncio/up
mkdir -p empty/deep; chmod 2751 empty; chmod 4711 os.py; chmod 0 stat.py
chown -h 12:34 link; chown 56:78 abc.py; mkfifo fifo
touch --no-dereference --date='1999-12-31 23:59:59' io.py fifo link dangling asyncio/up
find . -depth -type d -exec touch --date='2001-02-03 04:05:06' '{}' +
"""

# Everything that describes a file, but what differs from one file system to another.
DESCRIBE = r"""
cd $1
find . -type d -printf '%P %y %m %U:%G %T@\n' -o -printf '%P %y %m %U:%G %T@ %n %s %l\n' | sort
find . -type f -print0 | sort -z | xargs -0 sha256sum
"""


def describe(guest: Guest, directory: str) -> str:
    return guest.sh(f"set -- {directory}\n{DESCRIBE}")


@every_cache
def test_tar_brings_a_tree_there_and_back(guest: Guest, server: Server, cache: str) -> None:
    guest.sh(MAKE_TREE)
    original = describe(guest, "/tmp/tree")
    with guest.mount(server, cache=cache) as top:
        guest.sh(f"""
            tar --format=posix -C /tmp -cf /tmp/there.tar tree
            tar -C {top} -xpf /tmp/there.tar
            tar -C {top} --compare -f /tmp/there.tar
        """)
        assert describe(guest, f"{top}/tree") == original
    with guest.mount(server, cache=cache) as top:
        assert describe(guest, f"{top}/tree") == original
        guest.sh(f"""
            tar --format=posix -C {top} -cf /tmp/back.tar tree
            tar -C /tmp --compare -f /tmp/back.tar
            rm -rf {top}/tree /tmp/there.tar /tmp/back.tar
        """)


@pytest.mark.parametrize("options", [*CACHES, *OLD[:3]])
def test_git_clones_checks_and_commits(
    guest: Guest, server: Server, options: dict[str, Any]
) -> None:
    guest.sh(f"""
        {MAKE_TREE}
        rm -f fifo; chmod 600 stat.py
        export GIT_AUTHOR_DATE='2020-01-01 00:00Z' GIT_COMMITTER_DATE='2020-01-01 00:00Z'
        git config --global user.name Tester
        git config --global user.email tester@example.org
        git init --quiet; git add .; git commit --quiet -m first
        git rm --quiet --cached link; git commit --quiet -am second
    """)
    with guest.mount(server, **options) as top:
        guest.sh(f"""
            git clone --quiet file:///tmp/tree {top}/clone; cd {top}/clone
            git fsck --full --strict
            test -z "$(git status --porcelain)"
        """)
    with guest.mount(server, **options) as top:
        if options["cache"] != "loose":  # which makes up its own times until the data is written
            guest.sh(f"git -C {top}/clone diff-files --quiet")  # inode numbers, times: as indexed
        guest.sh(f"""
            cd {top}/clone
            test -z "$(git status --porcelain)"
            for number in 1 2 3; do
                echo $number >>os.py; echo $number >new$number; git rm --quiet asyncio/*s.py || :
                git add .; git commit --quiet -m $number
            done
            git gc --quiet --prune=now
            git checkout --quiet -b other HEAD~2; git checkout --quiet -
            git fsck --full --strict
            test -z "$(git status --porcelain)"
            test $(git rev-list --count HEAD) = 5
        """)


@pytest.mark.parametrize("options", [*CACHES, *OLD])
def test_a_program_is_built_and_run(guest: Guest, server: Server, options: dict[str, Any]) -> None:
    with guest.mount(server, **options) as top:
        guest.sh(f"""
            cd {top}; mkdir tmp; export TMPDIR={top}/tmp
            echo 'int twice(int x) {{ return 2 * x; }}' >twice.c
            cat >main.c <<'END'
#include <stdio.h>
int twice(int);
int main(void) {{ return printf("%d\\n", twice(21)) < 0; }}
END
            echo 'CFLAGS = -O2 -g' >Makefile
            echo 'main: main.o twice.o' >>Makefile
            make --silent -j2
            make --question
            rmdir tmp
        """)
        assert guest.sh(f"{top}/main") == "42\n"


SQLITE = """
PRAGMA journal_mode={mode};
CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT UNIQUE, value INTEGER);
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
INSERT INTO items SELECT i, 'item ' || i, i FROM n;
COMMIT;
BEGIN; DELETE FROM items; ROLLBACK;
UPDATE items SET value = value * 2 WHERE id % 2;
DELETE FROM items WHERE id % 10 = 0;
{inserts}
VACUUM;
PRAGMA integrity_check;
SELECT count(*), sum(value) FROM items;
"""


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        *(pytest.param("delete", *each.values, id=f"delete-{each.id}") for each in (*CACHES, *OLD)),
        *(pytest.param("wal", *each.values, id=f"wal-{each.id}") for each in CACHES[1:]),
    ],
)
def test_sqlite(guest: Guest, server: Server, mode: str, options: dict[str, Any]) -> None:
    inserts = "\n".join(f"INSERT INTO items VALUES ({i}, 'new {i}', 1);" for i in range(6000, 6100))
    kept = [i for i in range(1, 5001) if i % 10]
    total = sum(2 * i if i % 2 else i for i in kept) + 100
    answer = f"ok\n{len(kept) + 100}|{total}\n"
    with guest.mount(server, **options) as top:
        script = SQLITE.format(mode=mode, inserts=inserts)
        assert guest.sh(f"sqlite3 {top}/db <<'END'\n{script}\nEND") == f"{mode}\n{answer}"
    with guest.mount(server, **options) as top:
        queries = "PRAGMA integrity_check; SELECT count(*), sum(value) FROM items;"
        assert guest.sh(f"sqlite3 {top}/db '{queries}'") == answer


def test_two_sqlite_writers_on_two_mounts_take_turns(guest: Guest, server: Server) -> None:
    increments = "BEGIN IMMEDIATE; UPDATE counter SET n = n + 1; COMMIT;\n" * 50
    with guest.mount(server, "/mnt/a") as a, guest.mount(server, "/mnt/b") as b:
        guest.sh(f"sqlite3 {a}/db 'CREATE TABLE counter (n); INSERT INTO counter VALUES (0);'")
        guest.sh(f"""
            echo '.timeout 20000\n{increments}' >/tmp/increments
            sqlite3 -bail {a}/db </tmp/increments & one=$!
            sqlite3 -bail {b}/db </tmp/increments & two=$!
            status=0
            wait $one || status=1; wait $two || status=1
            [ $status = 0 ] || cat /proc/locks
            exit $status
        """)
        assert (
            guest.sh(f"sqlite3 {b}/db 'SELECT n FROM counter; PRAGMA integrity_check'")
            == "100\nok\n"
        )
