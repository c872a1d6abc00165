"""Layers are hostile: whatever is in the archive, nothing outside the layer is touched."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import stat
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bazaar.errors import ImageError
from bazaar.run.images import unpack
from tests.run.layouts import archive, compress, digest, member


def put(folder: Path, data: bytes) -> tuple[Path, str]:
    source, target = folder / "layer", folder / "root"
    source.write_bytes(data)
    target.mkdir()
    return target, unpack.layer(source, target, what="image")


@pytest.mark.parametrize("how", ["plain", "gzip", "zstd"])
def test_files_links_owners_and_times(tmp_path, how):
    data = archive(
        member("./", kind=tarfile.DIRTYPE, mode=0o755),
        member("./bin", kind=tarfile.DIRTYPE, mtime=1000),
        member("./bin/tool", data=b"x" * 100_000, mode=0o4755, uid=7, gid=8, mtime=2000),
        member("./bin/same", kind=tarfile.LNKTYPE, linkname="./bin/tool"),
        member("./bin/soft", kind=tarfile.SYMTYPE, linkname="/etc/passwd", uid=9),
        member("deep/er/file", data=b"y"),
        member("pipe", kind=tarfile.FIFOTYPE),
    )
    root, found = put(tmp_path, compress(data, how))
    assert found == digest(data)
    tool = (root / "bin/tool").stat()
    assert stat.S_IMODE(tool.st_mode) == 0o4755 and (tool.st_uid, tool.st_gid) == (7, 8)
    assert tool.st_mtime == 2000 and (root / "bin").stat().st_mtime == 1000
    assert (root / "bin/same").stat().st_ino == tool.st_ino
    assert (
        os.readlink(root / "bin/soft") == "/etc/passwd" and (root / "bin/soft").lstat().st_uid == 9
    )
    assert (root / "deep/er/file").read_bytes() == b"y"
    assert stat.S_ISFIFO((root / "pipe").lstat().st_mode)


def test_deletions_become_what_the_overlay_understands(tmp_path):
    root, _ = put(
        tmp_path,
        archive(member("a/.wh.gone"), member("b/.wh..wh..opq"), member("b/new", data=b"1")),
    )
    gone = (root / "a/gone").lstat()
    assert stat.S_ISCHR(gone.st_mode) and gone.st_rdev == 0
    assert os.getxattr(root / "b", "trusted.overlay.opaque") == b"y"
    assert sorted(path.name for path in (root / "a").iterdir()) == ["gone"]


def test_later_members_replace_earlier_ones(tmp_path):
    root, _ = put(
        tmp_path,
        archive(
            member("x", kind=tarfile.SYMTYPE, linkname="/etc"),
            member("x", kind=tarfile.DIRTYPE),
            member("x/y", data=b"1"),
            member("z", kind=tarfile.DIRTYPE),
            member("z/deep", data=b"2"),
            member("z", data=b"3"),
        ),
    )
    assert (root / "x/y").read_bytes() == b"1" and not (root / "x").is_symlink()
    assert (root / "z").read_bytes() == b"3"


ESCAPES = {
    "absolute": [member("/etc/bz-escaped", data=b"x")],
    "dots": [member("../bz-escaped", data=b"x")],
    "inner dots": [member("a/../../bz-escaped", data=b"x")],
    "dots at the end": [member("a/..", kind=tarfile.DIRTYPE)],
    "through a link": [
        member("a", kind=tarfile.SYMTYPE, linkname="OUTSIDE"),
        member("a/bz-escaped", data=b"x"),
    ],
    "through a link twice": [
        member("a", kind=tarfile.SYMTYPE, linkname="OUTSIDE"),
        member("a/b/bz-escaped", data=b"x"),
    ],
    "soft link to nothing": [member("a", kind=tarfile.SYMTYPE, linkname="")],
    "hard link out": [member("a", kind=tarfile.LNKTYPE, linkname="/etc/passwd")],
    "hard link up": [member("a", kind=tarfile.LNKTYPE, linkname="../outside/file")],
    "hard link through a link": [
        member("a", kind=tarfile.SYMTYPE, linkname="OUTSIDE"),
        member("b", kind=tarfile.LNKTYPE, linkname="a/file"),
    ],
    "hard link to nothing": [member("a", kind=tarfile.LNKTYPE, linkname="b")],
    "hard link to a folder": [
        member("d", kind=tarfile.DIRTYPE),
        member("a", kind=tarfile.LNKTYPE, linkname="d"),
    ],
    "whiteout through a link": [
        member("a", kind=tarfile.SYMTYPE, linkname="OUTSIDE"),
        member("a/.wh.file"),
    ],
    "whiteout of dots": [member(".wh...")],
    "opaque through a link": [
        member("a", kind=tarfile.SYMTYPE, linkname="OUTSIDE"),
        member("a/.wh..wh..opq"),
    ],
    "through a file": [member("a", data=b"x"), member("a/b", data=b"x")],
    "block device": [member("sda", kind=tarfile.BLKTYPE, devmajor=8, devminor=0)],
    "character device": [member("mem", kind=tarfile.CHRTYPE, devmajor=1, devminor=1)],
    "root is a file": [member(".", data=b"x")],
    "long name": [member("x" * 300, data=b"x")],
    "deep": [member("/".join("x" * 300), kind=tarfile.DIRTYPE)],
}


@pytest.mark.parametrize("name", ESCAPES)
def test_nothing_escapes(tmp_path, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("precious")
    before = snapshot(outside)
    members = ESCAPES[name]
    for info, _ in members:
        if info.linkname == "OUTSIDE":
            info.linkname = str(outside)
    with pytest.raises(ImageError):
        put(tmp_path, archive(*members))
    assert snapshot(outside) == before
    assert not Path("/etc/bz-escaped").exists() and not (tmp_path / "bz-escaped").exists()


def snapshot(folder: Path) -> list:
    return [
        (path.name, path.lstat().st_nlink, path.read_bytes(), os.listxattr(path))
        for path in folder.iterdir()
    ]


PIECES = st.sampled_from(
    ["a", "b", "..", ".", "", "/", ".wh.a", ".wh..wh..opq", ".wh..", "\n", "ü", "x" * 260]
)
NAMES = st.lists(PIECES, min_size=1, max_size=5).map("/".join)
KINDS = st.sampled_from(
    [
        tarfile.REGTYPE,
        tarfile.DIRTYPE,
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.FIFOTYPE,
        tarfile.CHRTYPE,
        b"Z",
    ]
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    members=st.lists(
        st.tuples(NAMES, KINDS, NAMES, st.integers(0, 0o7777), st.integers(-(2**40), 2**40)),
        max_size=8,
    )
)
def test_any_members_make_a_tree_or_an_error(tmp_path_factory, members):
    folder = tmp_path_factory.mktemp("any")
    (folder / "outside").write_text("precious")
    data = archive(
        *(
            member(name, kind=kind, linkname=link, mode=mode, mtime=mtime)
            for name, kind, link, mode, mtime in members
            if name
        )
    )
    with contextlib.suppress(ImageError):
        put(folder, data)
    assert sorted(path.name for path in folder.iterdir()) == ["layer", "outside", "root"]
    assert (folder / "outside").read_text() == "precious"
    assert (folder / "outside").stat().st_nlink == 1


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damaged_archives_are_errors(tmp_path_factory, data):
    whole = archive(
        member("a", data=b"z" * 700), member("b", kind=tarfile.DIRTYPE), member("b/c", data=b"1")
    )
    whole = compress(whole, data.draw(st.sampled_from(["plain", "gzip"])))
    cut = data.draw(st.integers(0, len(whole)))
    noise = data.draw(st.binary(max_size=20))
    where = data.draw(st.integers(0, len(whole)))
    damaged = (whole[:where] + noise + whole[where + len(noise) :])[:cut]
    with contextlib.suppress(ImageError):
        put(tmp_path_factory.mktemp("cut"), damaged)


def test_no_space_leaves_nothing_half(tmp_path, monkeypatch):
    """A cache on a file system of two megabytes."""
    from bazaar.host import mounts
    from bazaar.run import images
    from bazaar.run.images import store
    from tests.run.layouts import Layout

    layout = Layout(tmp_path / "layout")
    layout.image(
        archive(member("small", data=b"1")), archive(member("big", data=os.urandom(4 << 20)))
    )
    small = tmp_path / "cache"
    small.mkdir()
    mounts.mount("tmpfs", small, "tmpfs", options="size=2m")
    try:
        monkeypatch.setenv("BAZAAR_CACHE", str(small))
        with pytest.raises(ImageError, match="no space left"):
            images.ensure(f"oci:{layout.folder}", lambda _: None)
        assert not [path for path in store.layers().iterdir() if path.name.startswith(".building")]
        assert len([path for path in store.layers().iterdir() if path.is_dir()]) == 1, (
            "the whole layer stays"
        )
        assert images.listing() == []
    finally:
        mounts.unmount(small)


def test_headers_that_would_fill_the_memory_are_refused(tmp_path):
    """A megabyte of gzip can hold a gigabyte of header, which tarfile reads in one piece."""
    for kind in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME):
        folder = tmp_path / kind.decode()
        folder.mkdir()
        data = gzip.compress(raw(member("x", kind=kind, data=b"0" * (64 << 20))))
        tracemalloc.start()
        try:
            with pytest.raises(ImageError, match="headers are longer"):
                put(folder, data)
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
        finally:
            tracemalloc.stop()


def test_sparse_maps_and_endless_global_headers_are_refused(tmp_path):
    info, _ = member("x", kind=tarfile.GNUTYPE_SPARSE)
    first = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    first[482] = 1  # isextended: a block of 21 holes follows, and another one
    first[148:156] = b"%06o\0 " % (sum(first) - sum(first[148:156]) + 8 * 32)
    more = b"0" * 504 + b"\1" + bytes(7)
    one = b"11 k=valu\n"
    several = [member("g", kind=tarfile.XGLTYPE, data=one)] * 500
    keys = [
        part
        for number in range(200)
        for part in (
            member("g", kind=tarfile.XGLTYPE, data=b"%d %06d=v\n" % (12, number)),
            member(f"file{number}"),
        )
    ]
    for name, data in {
        "holes": bytes(first) + more * 4096,
        "in a row": raw(*several),
        "between files": raw(*keys),
    }.items():
        folder = tmp_path / name
        folder.mkdir()
        with pytest.raises(ImageError, match="damaged layer"):
            put(folder, data)


def test_a_layer_has_a_largest_size(tmp_path, monkeypatch):
    monkeypatch.setattr(unpack, "MAX_LAYER", 1500)
    with pytest.raises(ImageError, match="a layer of more than"):
        put(tmp_path, archive(member("a", data=b"x" * 1000), member("b", data=b"x" * 1000)))
    assert not (tmp_path / "root" / "b").exists()


def raw(*members: tuple) -> bytes:
    """An archive of these members as they are: no header is added for what does not fit."""
    buffer = io.BytesIO()
    for info, data in members:
        buffer.write(info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512))
    return buffer.getvalue() + bytes(1024)
