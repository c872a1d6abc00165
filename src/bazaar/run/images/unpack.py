"""Unpacking one OCI layer: a tar archive becomes a directory the kernel's overlay can stack.

The archive is hostile. No member is reached through a link, none leaves the layer's directory,
devices are refused, and deletions become overlay whiteouts (image specification, layer.md).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import subprocess
import tarfile
import zlib
from collections.abc import Generator
from pathlib import Path
from typing import BinaryIO, cast

from bazaar.errors import ImageError

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
CHUNK = 1 << 20
MAX_MEMBERS = 2_000_000
MAX_DEPTH = 200
MAX_HEADERS = 1 << 20  # bytes of one member's headers, all of which tarfile holds in memory
MAX_GLOBALS = 64  # keys that apply to all members after them, and are held as long
MAX_LAYER = 64 << 30  # bytes of all files of one layer
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_EXTENDED = ("user.", "security.capability")


class _Reader:
    """A stream that hashes what passes through it, and bounds what is read at one time."""

    def __init__(self, source: BinaryIO) -> None:
        self.source = source
        self.digest = hashlib.sha256()
        self.left: int | None = None

    def read(self, size: int = -1) -> bytes:
        data = self.source.read(size if size >= 0 else CHUNK)
        self.digest.update(data)
        if self.left is not None:
            self.left -= len(data)
            if self.left < 0:
                raise tarfile.ReadError(f"a file's headers are longer than {MAX_HEADERS} bytes")
        return data

    @contextlib.contextmanager
    def headers(self) -> Generator[None]:
        """Headers are read, not a file's content: there is an end to how long they may be."""
        self.left = MAX_HEADERS
        try:
            yield
        finally:
            self.left = None

    def drain(self) -> str:
        """Read to the end; the digest of everything."""
        while self.read(CHUNK):
            pass
        return "sha256:" + self.digest.hexdigest()


class _Gunzip:
    """gzip of any number of members, as a stream; a damaged one is an OSError."""

    def __init__(self, source: BinaryIO) -> None:
        self.source = source
        self.engine = zlib.decompressobj(wbits=31)
        self.ready = b""
        self.pending = b""

    def read(self, size: int) -> bytes:
        while len(self.ready) < size:
            data = self.pending or self.source.read(64 << 10)
            self.pending = b""
            if not data:
                if not self.engine.eof:
                    raise OSError(errno.EBADMSG, "the compressed data ends too early")
                break
            if self.engine.eof:
                self.engine = zlib.decompressobj(wbits=31)
            try:
                self.ready += self.engine.decompress(data, CHUNK)
            except zlib.error as error:
                raise OSError(errno.EBADMSG, f"damaged gzip data: {error}") from error
            self.pending = (
                self.engine.unused_data if self.engine.eof else self.engine.unconsumed_tail
            )
        result, self.ready = self.ready[:size], self.ready[size:]
        return result


@contextlib.contextmanager
def _plain(file: BinaryIO) -> Generator[BinaryIO]:
    """The archive without its compression, told by its first bytes."""
    head = file.read(4)
    file.seek(0)
    if head.startswith(GZIP):
        yield cast("BinaryIO", _Gunzip(file))
        return
    if head != ZSTD:
        yield file
        return
    os.lseek(file.fileno(), 0, os.SEEK_SET)  # Python's own position is not what zstd inherits
    try:
        process = subprocess.Popen(
            ["zstd", "-dcq"], stdin=file, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except FileNotFoundError as error:
        raise ImageError(
            "a layer is compressed with zstd, which is not installed", hint="apt-get install zstd"
        ) from error
    assert process.stdout is not None
    try:
        with process.stdout as out:
            yield cast("BinaryIO", out)
        if process.wait() != 0:
            raise OSError(errno.EBADMSG, "damaged zstd data")
    finally:
        process.kill()
        process.wait()


def layer(archive: Path, target: Path, *, what: str) -> str:
    """Unpack ``archive`` into the empty directory ``target``; the digest of the plain archive.

    Raises ImageError that names ``what`` for an archive that is damaged or tries to escape,
    and OSError where the file system refuses.
    """
    try:
        with archive.open("rb") as file, _plain(file) as plain:
            reader = _Reader(plain)
            _members(reader, target, what)
            return reader.drain()
    except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError) as error:
        raise ImageError(f"{what}: damaged layer: {error}") from error
    except OSError as error:
        if error.errno == errno.EBADMSG:
            raise ImageError(f"{what}: damaged layer: {error.strerror}") from error
        raise


def _members(reader: _Reader, target: Path, what: str) -> None:
    count = 0
    with _Tree(target, what) as tree, _opened(reader) as tar:
        while (member := _next(reader, tar)) is not None:
            count += 1
            if count > MAX_MEMBERS:
                raise ImageError(f"{what}: a layer with more than {MAX_MEMBERS} files")
            tree.add(member, tar)
            # tarfile keeps every member it has seen; a layer may have very many.
            tar.members.clear()  # type: ignore[attr-defined]


def _opened(reader: _Reader) -> tarfile.TarFile:
    with reader.headers():
        # The mode r| asks for read() alone.
        return tarfile.open(fileobj=cast("BinaryIO", reader), mode="r|")


def _next(reader: _Reader, tar: tarfile.TarFile) -> tarfile.TarInfo | None:
    """The next member; the content of the one before was read, so that headers are all there is."""
    with reader.headers():
        member = tar.next()
    if len(tar.pax_headers) > MAX_GLOBALS:
        raise tarfile.ReadError(f"more than {MAX_GLOBALS} global headers")
    return member


class _Tree:
    """The directory a layer is unpacked into; reached by descriptors, never through a link."""

    def __init__(self, target: Path, what: str) -> None:
        self.what = what
        self.size = 0
        self.root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.folder: tuple[tuple[str, ...], int] | None = None
        self.times: list[tuple[tuple[str, ...], tarfile.TarInfo]] = []

    def __enter__(self) -> _Tree:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            # Deepest last in an archive: a folder's times are set when nothing more comes into it.
            for parts, member in reversed(self.times):
                with contextlib.suppress(OSError):
                    self._times(parts[-1], self._open(parts[:-1], make=False), member)
        self._forget()
        os.close(self.root)

    def _forget(self) -> None:
        if self.folder is not None:
            os.close(self.folder[1])
            self.folder = None

    def parts(self, name: str, kind: str) -> tuple[str, ...]:
        """A member's path in pieces. Raises ImageError for one that would leave the layer."""
        pieces = tuple(piece for piece in name.split("/") if piece not in ("", "."))
        if name.startswith("/") or ".." in pieces or "\0" in name or len(pieces) > MAX_DEPTH:
            raise ImageError(f"{self.what}: the {kind} '{name[:200]}' leads out of the image")
        if any(len(os.fsencode(piece)) > 255 for piece in pieces):
            raise ImageError(f"{self.what}: a {kind} with a name of more than 255 bytes")
        return pieces

    def _open(self, parts: tuple[str, ...], *, make: bool) -> int:
        """A descriptor of a folder inside, valid until the next call."""
        if self.folder is not None and self.folder[0] == parts:
            return self.folder[1]
        descriptor = os.dup(self.root)
        try:
            for part in parts:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, 0o755, dir_fd=descriptor)
                deeper = os.open(
                    part,
                    os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC,
                    dir_fd=descriptor,
                )
                os.close(descriptor)
                descriptor = deeper
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise ImageError(
                    f"{self.what}: '{'/'.join(parts)[:200]}' leads through a link or file"
                ) from error
            raise
        self._forget()
        self.folder = (parts, descriptor)
        return descriptor

    def add(self, member: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
        """Make what one member stands for."""
        parts = self.parts(member.name, "path")
        if not parts:
            if not member.isdir():
                raise ImageError(f"{self.what}: the image's root is no directory")
            self._root(member)
            return
        parent, name = self._open(parts[:-1], make=True), parts[-1]
        if name == OPAQUE:
            os.setxattr(f"/proc/self/fd/{parent}", "trusted.overlay.opaque", b"y")
        elif name.startswith(WHITEOUT):
            hidden = name.removeprefix(WHITEOUT)
            if hidden in ("", ".", "..") or hidden.startswith(WHITEOUT):
                raise ImageError(f"{self.what}: '{name[:200]}' hides nothing that can be")
            self._clear(hidden, parent)
            os.mknod(hidden, stat.S_IFCHR | 0o600, os.makedev(0, 0), dir_fd=parent)
        else:
            self._make(parts, name, parent, member, tar)

    def _root(self, member: tarfile.TarInfo) -> None:
        os.fchown(self.root, member.uid, member.gid)
        os.fchmod(self.root, stat.S_IMODE(member.mode))

    def _make(
        self,
        parts: tuple[str, ...],
        name: str,
        parent: int,
        member: tarfile.TarInfo,
        tar: tarfile.TarFile,
    ) -> None:
        if member.isdir():
            self._folder(name, parent)
        else:
            self._clear(name, parent)
            if member.isreg():
                self._file(name, parent, member, tar)
            elif member.issym() and not member.linkname:
                raise ImageError(f"{self.what}: '{member.name[:200]}' is a link to nothing")
            elif member.issym():
                # Where it points matters only inside a container, whose root is its own.
                os.symlink(member.linkname, name, dir_fd=parent)
            elif member.islnk():
                self._link(name, parts[:-1], member)
                return  # it is the same file: owner and mode are set
            elif member.isfifo():
                os.mkfifo(name, 0o600, dir_fd=parent)
            else:
                kind = "a device" if member.isdev() else "of an unknown kind"
                raise ImageError(
                    f"{self.what}: '{member.name[:200]}' is {kind}",
                    hint="such an image is not unpacked",
                )
        self._attributes(name, parent, member)
        if member.isdir():
            self.times.append((parts, member))
        else:
            self._times(name, parent, member)

    def _folder(self, name: str, parent: int) -> None:
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(name, dir_fd=parent).st_mode):
                os.unlink(name, dir_fd=parent)
                os.mkdir(name, 0o755, dir_fd=parent)

    def _clear(self, name: str, parent: int) -> None:
        """A later member takes an earlier one's place."""
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            return
        except (IsADirectoryError, PermissionError):
            import shutil

            shutil.rmtree(name, dir_fd=parent)

    def _file(self, name: str, parent: int, member: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
        self.size += max(0, member.size)  # of a sparse file, with its holes
        if self.size > MAX_LAYER:
            raise ImageError(f"{self.what}: a layer of more than {MAX_LAYER >> 30} GB")
        source = tar.extractfile(member)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o600, dir_fd=parent)
        try:
            while source is not None and (data := source.read(CHUNK)):
                while data:
                    data = data[os.write(descriptor, data) :]
        finally:
            os.close(descriptor)

    def _link(self, name: str, folder: tuple[str, ...], member: tarfile.TarInfo) -> None:
        target = self.parts(member.linkname, "link")
        if not target:
            raise ImageError(f"{self.what}: '{member.name[:200]}' is a link to nothing")
        other = -1
        try:
            other = os.dup(self._open(target[:-1], make=False))
            parent = self._open(folder, make=True)
            if stat.S_ISDIR(os.lstat(target[-1], dir_fd=other).st_mode):
                raise ImageError(
                    f"{self.what}: '{member.name[:200]}' is a hard link to a directory"
                )
            os.link(target[-1], name, src_dir_fd=other, dst_dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError as error:
            raise ImageError(
                f"{self.what}: '{member.name[:200]}' is a link to what is not in its layer"
            ) from error
        finally:
            if other >= 0:
                os.close(other)

    def _attributes(self, name: str, parent: int, member: tarfile.TarInfo) -> None:
        if not (0 <= member.uid < 2**32 - 1 and 0 <= member.gid < 2**32 - 1):
            raise ImageError(f"{self.what}: '{member.name[:200]}' belongs to nobody that can be")
        os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
        if member.issym():
            return
        os.chmod(name, stat.S_IMODE(member.mode), dir_fd=parent)
        for key, value in member.pax_headers.items():
            attribute = key.removeprefix("SCHILY.xattr.")
            if key != attribute and attribute.startswith(_EXTENDED):
                with contextlib.suppress(OSError):
                    data = value.encode("utf-8", "surrogateescape")
                    os.setxattr(
                        f"/proc/self/fd/{parent}/{name}", attribute, data, follow_symlinks=False
                    )

    def _times(self, name: str, parent: int, member: tarfile.TarInfo) -> None:
        with contextlib.suppress(OSError, OverflowError, ValueError):
            moment = max(0, int(float(member.mtime) * 1e9))
            os.utime(name, ns=(moment, moment), dir_fd=parent, follow_symlinks=False)
