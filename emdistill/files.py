"""How files are made safe: written whole or not at all, known by checksum, and by one process at a time.

What is written goes beside its place, is flushed to the disk, and is then renamed: a kill or a power cut leaves the
old file or the new one. A folder is sealed by a manifest of checksums, which is written last.
"""

import errno
import glob
import hashlib
import json
import os
import platform
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from emdistill.errors import EmdistillError, OutputError, tell

LONGEST_NAME = 255  # bytes that file systems take
MANIFEST = "manifest.json"
POINTER = b"version https://git-lfs"
FETCH = "this is a pointer of Git LFS, and the file itself is not here; fetch it: git lfs pull"
# What the operating system says of a disk that is full, failing, or not to be written to.
STORAGE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG}
MEND = "mend the disk (free space, permission)"


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """An empty file beside `path` to write into: it becomes `path` at the end, or vanishes where anything fails.

    It is `path`.OWNER.part, so that no two processes share it; those of processes that were killed are removed. A link
    is replaced, not followed: a stranger's run folder cannot send a write elsewhere. Raises OSError at once where it
    cannot be made.
    """
    for left in path.parent.glob(f"{glob.escape(path.name)}.*.part"):
        if _was_killed(left.name.removeprefix(f"{path.name}.").removesuffix(".part")):
            left.unlink(missing_ok=True)
    part = path.with_name(f"{path.name}.{_owner()}.part")
    part.unlink(missing_ok=True)  # a link that stands there is not followed
    part.touch(exist_ok=False)
    try:
        yield part
        flush(part)
        part.replace(path)
        flush(path.parent)
    finally:
        part.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write `text` in UTF-8, whole or not at all."""
    with written_whole(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, values: Any) -> None:
    """Write plain values as JSON, whole or not at all."""
    write_whole(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def is_inside(name: str) -> bool:
    """Whether a path that a file names stays within the folder that it is seen from, and can be one at all."""
    is_short = len(name.encode("utf-8", "surrogatepass")) <= LONGEST_NAME
    return is_short and not Path(name).is_absolute() and ".." not in Path(name).parts


def exists(path: Path) -> bool:
    """Whether there is such a file or folder; False for a name that the system takes for none."""
    try:
        return path.exists()
    except OSError:
        return False


def matching(name: str) -> list[str]:
    """The files that a pattern of * and ?, such as texts/*.txt, fits, in their order; itself where it is there."""
    if exists(Path(name)):
        return [name]
    try:
        is_pattern = "*" in name or "?" in name
        return sorted(glob.glob(name.replace("[", "[[]"))) if is_pattern else []  # noqa: PTH207 (takes absolute ones)
    except ValueError:  # a NUL, or half of a surrogate pair
        return []


@contextmanager
def folder_written_whole(place: Path) -> Iterator[Path]:
    """The same for a folder: what stands at `place` (a link too) is replaced at the end, or stays where anything fails.

    A kill between the two renames leaves the old folder aside; the next call puts it back before anything else.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    put_back(place)
    work = _work_folder(place.parent, f".{place.name}")
    part, old = work / "new", work / "old"
    part.mkdir()
    try:
        yield part
        flush_all(part)
        if place.exists() or place.is_symlink():
            place.replace(old)
        part.replace(place)
        flush(place.parent)
    finally:
        if (old.exists() or old.is_symlink()) and not place.exists():
            old.replace(place)
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def files_written_whole(folder: Path) -> Iterator[Path]:
    """An empty folder to write files into; at the end each replaces the one of its name in `folder`, or none does."""
    folder.mkdir(parents=True, exist_ok=True)
    work = _work_folder(folder, ".new")
    try:
        yield work
        flush_all(work)
        for file in sorted(work.iterdir()):
            file.replace(folder / file.name)
        flush(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _work_folder(parent: Path, name: str) -> Path:
    """An empty folder `name`-OWNER-… to write into; those of processes that were killed are removed."""
    for left in parent.glob(f"{glob.escape(name)}-*"):
        if _was_killed(left.name.removeprefix(f"{name}-").rpartition("-")[0]):
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{name}-{_owner()}-", dir=parent))


def _owner() -> str:
    """This process, by its machine and number: a folder may be shared by several machines."""
    return f"{_machine()}-{os.getpid()}"


def _machine() -> str:
    return f"{zlib.crc32(platform.node().encode()):08x}"


def _was_killed(owner: str) -> bool:
    """Whether the process that `_owner` named was of this machine, and is there no more, as far as can be asked."""
    machine, _, process = owner.partition("-")
    if machine != _machine() or not process.isdecimal() or os.name != "posix":
        return False
    try:
        os.kill(int(process), 0)  # asks only
    except OSError as error:
        return error.errno == errno.ESRCH
    return False


def put_back(place: Path) -> None:
    """Where a killed process has moved the folder `place` aside and put no other there, put it back."""
    for old in place.parent.glob(f".{glob.escape(place.name)}-*/old"):
        if not place.exists():
            old.replace(place)


def flush(place: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_all(folder: Path) -> None:
    """The same for all that stands below a folder, and itself."""
    for place in (*folder.rglob("*"), folder):
        flush(place)


def seal(folder: Path) -> None:
    """Flush the files of `folder` and write their manifest: from now on `damage` knows what becomes of them."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    flush_all(folder)
    sums = {name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for name, path in files.items()}
    write_whole(folder / MANIFEST, json.dumps(sums, indent=1) + "\n")


def damage(folder: Path) -> str:
    """What has become of a sealed folder: the first file that is not as it was, in words; '' where all are."""
    try:
        sums = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        for name, expected in sums.items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != expected["bytes"]:
                return f"{name} has {path.stat().st_size} bytes instead of {expected['bytes']}"
            if sha256(path) != expected["sha256"]:
                return f"{name} is damaged: its checksum differs"
    except FileNotFoundError:
        return f"it has no {MANIFEST}, so it was not written to its end"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} cannot be read: {error}"
    return ""


def is_pointer(path: Path) -> bool:
    """Whether a file is what Git LFS leaves in the place of a large one that was not fetched."""
    return begins_with(path, POINTER)


def begins_with(path: Path, beginning: bytes) -> bool:
    """Whether these are the first bytes of a file; False where it cannot be opened."""
    try:
        with path.open("rb") as file:
            return file.read(len(beginning)) == beginning
    except OSError:  # whoever reads it says why
        return False


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def append_line(path: Path, line: bytes) -> None:
    """Add a line to a file, and wait until it is on the disk."""
    with path.open("ab") as file:
        file.write(line + b"\n")
        file.flush()
        os.fsync(file.fileno())


CRC = b'"crc32": "'


def sealed(record: bytes, before: bytes = b" ") -> bytes:
    """A JSON object with a checksum as its last entry, {..., "crc32": "89abcdef"}, and `before` it this space."""
    body = record.rstrip()[:-1].rstrip()
    return body + b"," + before + CRC + b'%08x"}' % zlib.crc32(body + b"}")


def unsealed(record: bytes) -> bytes:
    """The object without its checksum, if it has one (earlier versions wrote none); ValueError where they differ."""
    body, mark, checksum = record.rstrip().rpartition(CRC)
    if not mark:
        return record
    body = body.rstrip()[:-1] + b"}"
    if checksum != b'%08x"}' % zlib.crc32(body):
        raise ValueError("its checksum differs, so it was damaged after it was written")
    return body


@contextmanager
def storage_errors(place: Path | str, mend: str = MEND) -> Iterator[None]:
    """Inside, files are written below `place`, perhaps by other libraries: what the disk refuses is an OutputError.

    safetensors, torch and tokenizers tell of a full disk by errors of their own, which are no OSError.
    """
    try:
        yield
    except EmdistillError:
        raise
    except OSError as error:
        if error.errno not in STORAGE:
            raise
        raise OutputError(f"{error.filename or place} cannot be written: {error.strerror}; {mend}") from error
    except Exception as error:
        if not any(sign in str(error) for sign in FOREIGN_SIGNS):
            raise
        raise OutputError(f"{place} cannot be written: {str(error).splitlines()[0]}; {mend}") from error


# What a full or failing disk looks like in the errors of safetensors and tokenizers (Rust), and of torch (C++).
FOREIGN_SIGNS = ("os error", "file write failed", "unexpected pos", "iostream error", "IoError")


@contextmanager
def one_at_a_time(path: Path, writing: str) -> Iterator[None]:
    """Hold the lock `path`; a process that waits says that another run is writing `writing`.

    The lock of a run that was killed is free again.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        tell(f"another run is writing {writing}; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
