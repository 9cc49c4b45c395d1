"""Files are whole or absent: they are written, hashed and found by paths that cannot leave their folder.

A write goes to a temporary name in the same folder, is flushed to the disk (file, then folder) and renamed. What a
killed process leaves behind therefore always has a temporary name, which nothing reads and `clean` removes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath


class RunError(RuntimeError):
    """Trouble with a run folder: damaged, foreign, in use, or made with another configuration.

    Examples
    --------
    >>> import ddoq, tempfile
    >>> try:
    ...     ddoq.load(tempfile.mkdtemp())
    ... except ddoq.RunError as error:
    ...     print("run.json" in str(error))
    True
    """


def write_atomic(path: Path, data: bytes | bytearray) -> None:
    """Write a file so that it is there whole or not at all, even if the process is killed or the disk is full.

    Raises
    ------
    OSError
        With the name of the file; an old file of that name is left as it was.
    """
    temporary = _temporary(path)
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        raise OSError(error.errno, f"cannot write: {error.strerror}", str(path)) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_writable(*paths: Path | None) -> None:
    """Make the folders of files that are to be written later; OSError if one could not be written."""
    for path in paths:
        if path is None:
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path.parent):
                pass
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "it is a folder")
        except OSError as error:
            raise OSError(error.errno, f"cannot write: {error.strerror}", str(path)) from error


def share(source: Path, path: Path) -> None:
    """Give a whole file a second name, or copy it where it cannot be linked (another disk, no hard links).

    For files of `write_atomic` alone: they are replaced and never changed in place, so one name's end is not the
    other's.
    """
    temporary = _temporary(path)
    try:
        os.link(source.resolve(), temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError:
        write_atomic(path, source.read_bytes())
    finally:
        temporary.unlink(missing_ok=True)  # it stays where both names were one file already


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Build a folder under a temporary name beside `path`, and put it there whole when the block ends.

    An old folder of that name is replaced; if the block raises, it is left as it was and what was built is removed.
    """
    temporary, old = _temporary(path), path.parent / f".{path.name}.{os.getpid()}.old.tmp"
    for stale in (temporary, old):
        shutil.rmtree(stale, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        with ThreadPoolExecutor(32) as pool:  # flushes that wait together are many times faster than one by one
            list(pool.map(_sync, [temporary, *temporary.rglob("*")]))
        if path.exists():
            os.rename(path, old)
        os.rename(temporary, path)
        _sync(path.parent)
    except OSError as error:
        raise OSError(error.errno, f"cannot write the folder: {error.strerror or error}", str(path)) from error
    finally:
        for stale in (temporary, old):
            shutil.rmtree(stale, ignore_errors=True)


def clean(folder: Path) -> None:
    """Remove what killed writes left directly in a folder; only where no other process writes."""
    for stale in folder.glob(".*.tmp"):
        if stale.is_dir() and not stale.is_symlink():
            shutil.rmtree(stale)
        else:
            stale.unlink()


def is_temporary(name: str) -> bool:
    """Whether a name is one that only unfinished writes have."""
    return name.startswith(".") and name.endswith(".tmp")


def sha256_file(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def inside(folder: Path, name: str, source: Path) -> Path:
    """The path of `name` in `folder`; RunError if it would lie outside, naming the file `source` that asked for it."""
    relative = PurePosixPath(name)
    path = folder / relative
    escapes = not name or "\0" in name or relative.is_absolute() or ".." in relative.parts
    if escapes or not path.resolve().is_relative_to(folder.resolve()):
        raise RunError(f"{source} names a file outside its folder: {name!r}; do not trust this folder")
    return path


def _temporary(path: Path) -> Path:
    return path.parent / f".{path.name[:200]}.{os.getpid()}.tmp"


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
