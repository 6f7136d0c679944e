"""What the tests of the embedded store run in a process of its own, to hold it or to be killed in it.

python -m vecsync_dagster_tests.stores.embedded_process <write|hold> <folder> [flush after so many floats]
"""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path

from vecsync_dagster.stores import qdrant_embedded
from vecsync_dagster.stores.qdrant_embedded import QdrantEmbeddedStore
from vecsync_dagster_tests.stores.engines import SPACE, point, uid


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def write(store: QdrantEmbeddedStore) -> None:
    """Say the number of each batch once the store has confirmed it: 10 points, one moved, one deleted."""
    for batch in count():
        names = [f"{batch}-{n}" for n in range(10)]
        store.upsert("materials", [point(name, "A", batch=batch) for name in names])
        store.set_payload("materials", [point(names[0], "B", batch=batch)])
        store.delete("materials", "A", [uid(names[1])])
        say(str(batch))


def main() -> None:
    todo, folder, *floats = sys.argv[1:]
    if floats:
        qdrant_embedded.FLUSH_AFTER_FLOATS = int(floats[0])
    store = QdrantEmbeddedStore(Path(folder), lock_timeout_s=0)
    store.ensure_collection("materials", SPACE)
    say("open")
    if todo == "write":
        write(store)
    sys.stdin.readline()
    store.close()


if __name__ == "__main__":
    main()
