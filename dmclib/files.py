"""A file whole or not at all, a lock, and a name from the code that made a file.

A run may be killed at any moment, and what it leaves must never be taken for a finished file. So
everything this package writes goes to a temporary name beside its target, is flushed to disk, and
is then renamed, which the file system does in one step.
"""

import ast
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout

PACKAGE = Path(__file__).parent


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Give a temporary path to write to; on success it becomes ``path``, on failure it is gone.

    The temporary name keeps ``path``'s suffix, because encoders choose a container by it, and is
    different each time, so that two who make the same file do not write into each other's.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.partial{path.suffix}")
    try:
        yield partial
        with open(partial, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text to ``path``, whole or not at all."""
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def held(path: str | Path, busy: Callable[[], Exception] | None = None) -> Iterator[None]:
    """Hold a lock for this process; the system lets go of it when the process ends, however.

    Args:
        path: the lock's file, made where it is not there. What is written in it stays.
        busy: makes the error to raise where another process holds it; without it, wait.
    """
    try:
        lock = FileLock(path).acquire(timeout=-1 if busy is None else 0)
    except Timeout:
        raise busy() from None
    with lock:
        yield


def sha256(path: str | Path) -> str:
    """The digest of a file's content, read in pieces."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@cache
def code_digest(*rooms: str) -> str:
    """Eight letters that change with the code of these modules and wings, but not with its prose.

    Put into the name of what the code made, so that nothing stale is taken up after a change.
    """
    digest = hashlib.sha256()
    for room in rooms:
        for file in sorted((PACKAGE / room).glob("*.py")) or [PACKAGE / f"{room}.py"]:
            digest.update(_without_docstrings(file).encode())
    return digest.hexdigest()[:8]


def _without_docstrings(file: Path) -> str:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        match node:
            case ast.Module(body) | ast.ClassDef(body=body) | ast.FunctionDef(body=body):
                if body and isinstance(body[0], ast.Expr):
                    del body[0]
    return ast.dump(tree)
