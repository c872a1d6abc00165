"""The parts a container is made of: its root, its bundle, its log, its machine's apt."""

from __future__ import annotations

import contextlib
import itertools
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bazaar.errors import EngineError
from bazaar.host import apt_sources, resolvers
from bazaar.model.container import ContainerSpec, Image, ImageConfig, Mount
from bazaar.run import bundle, logs, rootfs


@pytest.fixture
def root(tmp_path) -> Path:
    place = tmp_path / "root"
    for folder in ("etc", "usr/bin", "data"):
        (place / folder).mkdir(parents=True)
    (place / "bin").symlink_to("usr/bin")
    (place / "usr/bin/tool").write_text("#!")
    (place / "usr/bin/tool").chmod(0o755)
    (place / "usr/bin/plain").write_text("")
    (place / "etc/passwd").write_text(
        "root:x:0:0::/root:/bin/sh\nann:x:7:8::/home/ann:\nbroken:x:y:z:::\n"
    )
    (place / "etc/group").write_text("blue:x:77:ann,bob\ngreen:x:78:\n")
    (tmp_path / "secret").write_text("of the host")
    return place


LINKS = {
    "/bin/tool": "/usr/bin/tool",
    "bin/../bin/./tool": "/usr/bin/tool",
    "/../../../bin/tool": "/usr/bin/tool",
    "/none": None,
    "/bin/tool/x": None,
    "/": "/",
}


@pytest.mark.parametrize(("path", "expected"), LINKS.items())
def test_paths_resolve_as_inside(root, path, expected):
    assert rootfs.resolve(root, path) == (
        None if expected is None else Path(f"{root}{expected}".rstrip("/"))
    )


@pytest.mark.parametrize(
    "target", ["../../secret", "/../secret", "../../../../../../etc/shadow", "loop", "SECRET"]
)
def test_no_link_leads_out(root, target, tmp_path):
    (root / "loop").symlink_to("loop")
    (root / "link").symlink_to(str(tmp_path / "secret") if target == "SECRET" else target)
    found = rootfs.resolve(root, "/link")
    assert found is None or found.is_relative_to(root)


@given(
    st.lists(st.sampled_from(["a", "b", "..", "/", "link", "."]), max_size=6), st.text(max_size=8)
)
def test_any_path_stays_inside(tmp_path_factory, pieces, target):
    place = tmp_path_factory.mktemp("root")
    (place / "a").mkdir()
    try:
        (place / "link").symlink_to(target or "..")
    except (OSError, ValueError):
        return
    found = rootfs.resolve(place, "/".join(pieces))
    assert found is None or found.is_relative_to(place)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("", (0, 0, (), "/root")),
        ("ann", (7, 8, (77,), "/home/ann")),
        ("7", (7, 8, (77,), "/home/ann")),
        ("ann:green", (7, 78, (), "/home/ann")),
        ("1000", (1000, 0, (), "/")),
        ("1000:1001", (1000, 1001, (), "/")),
        (":78", (0, 78, (), "/root")),
    ],
)
def test_users(root, wanted, expected):
    found = rootfs.user(root, wanted)
    assert (found.uid, found.gid, found.groups, found.home) == expected


@pytest.mark.parametrize(
    "wanted", ["nobody", "ann:red", "broken", "-1", "4294967295", "1:99999999999"]
)
def test_users_that_are_not(root, wanted):
    with pytest.raises(EngineError):
        rootfs.user(root, wanted)


@given(st.binary(max_size=200))
def test_any_passwd_is_read_or_refused(tmp_path_factory, data):
    place = tmp_path_factory.mktemp("root")
    (place / "etc").mkdir()
    (place / "etc/passwd").write_bytes(b"a:" + data)
    with contextlib.suppress(EngineError):
        rootfs.user(place, "a")


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("tool", 0),
        ("/bin/tool", 0),
        ("./usr/bin/tool", 0),
        ("plain", 126),
        ("/etc", 126),
        ("nope", 127),
        ("/data/x", 0),
        ("/database/x", 127),
    ],
)
def test_executables(root, command, code):
    assert rootfs.executable(root, command, "/none:/bin", "/", ["/data"]).code == code


def spec(**fields) -> ContainerSpec:
    config = fields.pop("config", ImageConfig(command=("c",)))
    return ContainerSpec("run.x", "x", Image("dir:/", "", (), config), **fields)


@pytest.mark.parametrize(
    ("entry", "command", "replaced", "given_", "expected"),
    [
        (("e",), ("c",), None, (), ["e", "c"]),
        (("e",), ("c",), None, ("g",), ["e", "g"]),
        ((), ("c",), None, (), ["c"]),
        (("e",), ("c",), ("r",), (), ["r"]),
        (("e",), ("c",), ("r",), ("g",), ["r", "g"]),
        (("e",), ("c",), (), ("g",), ["g"]),
    ],
)
def test_arguments_are_dockers(entry, command, replaced, given_, expected):
    made = spec(
        config=ImageConfig(entrypoint=entry, command=command), entrypoint=replaced, command=given_
    )
    assert bundle.arguments(made) == expected


def test_an_image_without_a_command_needs_one():
    with pytest.raises(EngineError, match="names no command"):
        bundle.arguments(spec(config=ImageConfig()))


def test_the_bundle_withholds_what_docker_withholds(root, tmp_path):
    folder = tmp_path / "container"
    folder.mkdir()
    mounts = (Mount(tmp_path, "/m", read_only=True), Mount(Path("tmpfs"), "/t", kind="tmpfs"))
    config = bundle.write(spec(engine="shared", user="ann", mounts=mounts), folder, root)
    process = config["process"]
    assert process["noNewPrivileges"] and process["user"] == {
        "uid": 7,
        "gid": 8,
        "additionalGids": [77],
    }
    assert (
        process["capabilities"]["effective"] == []
        and "CAP_SYS_ADMIN" not in process["capabilities"]["bounding"]
    )
    assert "HOME=/home/ann" in process["env"] and "rlimits" not in process
    assert "/proc/kcore" in config["linux"]["maskedPaths"]
    refused = config["linux"]["seccomp"]["syscalls"][0]["names"]
    assert {"mount", "bpf", "kexec_load", "setns", "io_uring_setup"} <= set(refused)
    by_target = {mount["destination"]: mount for mount in config["mounts"]}
    assert "ro" in by_target["/m"]["options"] and by_target["/t"]["type"] == "tmpfs"
    assert (folder / "config.json").stat().st_mode & 0o777 == 0o600
    assert "x" in (folder / "hosts").read_text()


def test_gvisor_makes_its_own_devices(root, tmp_path):
    config = bundle.write(spec(), tmp_path, root)
    assert "/dev" not in [mount["destination"] for mount in config["mounts"]]
    assert "seccomp" not in config["linux"]


def test_a_network_of_its_own_asks_no_server_on_the_hosts_loopback(root, tmp_path, monkeypatch):
    stub, behind = tmp_path / "stub", tmp_path / "behind"
    stub.write_text("nameserver 127.0.0.53\n")
    behind.write_text("nameserver 192.0.2.1\nsearch example.org\n")
    monkeypatch.setattr(resolvers, "_FILES", (stub, behind))
    bundle.write(spec(namespace="its-own"), tmp_path, root)
    assert (tmp_path / "resolv.conf").read_text() == behind.read_text()


def test_missing_mounts_and_namespaces_are_said(root, tmp_path):
    with pytest.raises(EngineError, match="does not exist"):
        bundle.write(spec(mounts=(Mount(tmp_path / "none", "/m"),)), tmp_path, root)
    with pytest.raises(EngineError, match="no network namespace"):
        bundle.check_namespace(spec(namespace="nowhere"))


# Logs


def entries(folder, **words):
    return [(line.stream, line.text, line.ends) for line in logs.read(folder, **words)]


def test_lines_come_back_as_they_were_written(tmp_path):
    writer = logs.Writer(tmp_path)
    for stream, data in (("stdout", b"one\ntw"), ("stderr", b"bad\n"), ("stdout", b"o\n\nrest")):
        writer.write(stream, data)
    writer.close()
    assert entries(tmp_path) == [
        ("stdout", b"one", True),
        ("stderr", b"bad", True),
        ("stdout", b"two", True),
        ("stdout", b"", True),
        ("stdout", b"rest", False),
    ]
    assert (
        entries(tmp_path, tail=1) == [("stdout", b"rest", False)]
        and entries(tmp_path, tail=0) == []
    )
    assert entries(tmp_path, since=4e9) == []


@given(st.lists(st.binary(max_size=60_000), max_size=6))
def test_no_byte_is_lost(tmp_path_factory, chunks):
    folder = tmp_path_factory.mktemp("log")
    writer = logs.Writer(folder)
    for chunk in chunks:
        writer.write("stdout", chunk)
    writer.close()
    assert b"".join(line.text + b"\n" * line.ends for line in logs.read(folder)) == b"".join(chunks)
    assert all(len(line.text) <= logs.LONGEST for line in logs.read(folder))


def test_a_log_fills_no_disk(tmp_path):
    writer = logs.Writer(tmp_path, largest=10_000)
    for number in range(5000):
        writer.write("stdout", b"line %d\n" % number)
    writer.close()
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) == 2 and max(sizes) <= 10_000
    kept = [text for _, text, _ in entries(tmp_path)]
    assert kept == [b"line %d" % number for number in range(5000 - len(kept), 5000)]
    assert len(kept) > 100


def test_following_ends_with_the_container(tmp_path):
    read, write = os.pipe()
    writer = logs.Writer(tmp_path, largest=500)
    writer.write("stdout", b"before\n")
    lines = logs.read(tmp_path, ended=read)
    seen = [next(lines).text]
    for number in range(30):  # turned over several times while it is read
        writer.write("stdout", b"line %d\n" % number)
        seen.append(next(lines).text)
    os.close(write)
    seen += [line.text for line in lines]
    os.close(read)
    writer.close()
    assert seen == [b"before", *(b"line %d" % number for number in range(30))]


@given(st.binary(max_size=80))
def test_any_line_is_an_entry_or_none(data):
    found = logs.parse(data)
    assert found is None or found.stream in ("stdout", "stderr")


# apt

ONE_LINE = """\
# deb http://commented.example/debian bookworm main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://a.example/debian bookworm \
main contrib # why
deb-src http://a.example/debian bookworm main
deb http://a.example/debian bookworm-updates main
deb [signed-by=/etc/apt/keyrings/docker.asc] https://docker.example/debian bookworm main
deb https://other.example/apt bookworm stable
"""
DEB822 = """\
Types: deb deb-src
URIs: http://a.example/debian
Suites: bookworm
 bookworm-updates
Components: main
# a comment
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
Enabled: no
URIs: http://off.example
Suites: bookworm
Components: main

Types: deb
URIs: http://a.example/debian-security
Suites: bookworm-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
"""


def test_one_line_sources():
    found = list(apt_sources.parse_lines(ONE_LINE))
    assert [(one.uri, one.suite, one.distribution) for one in found] == [
        ("http://a.example/debian", "bookworm", True),
        ("http://a.example/debian", "bookworm-updates", True),
        ("https://docker.example/debian", "bookworm", False),
        ("https://other.example/apt", "bookworm", False),
    ]
    key = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    assert apt_sources.for_suite("bookworm", found) == [
        f"deb {key} http://a.example/debian bookworm main contrib",
        "deb http://a.example/debian bookworm-updates main",
    ]


def test_deb822_sources():
    found = list(apt_sources.parse_deb822(DEB822))
    assert [(one.uri.rpartition("/")[2], one.suite) for one in found] == [
        ("debian", "bookworm"),
        ("debian", "bookworm-updates"),
        ("debian-security", "bookworm-security"),
    ]
    key = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] "
    assert apt_sources.for_suite("trixie", found) == [
        f"deb {key}http://a.example/debian trixie main",
        f"deb {key}http://a.example/debian trixie-updates main",
        "deb http://a.example/debian-security trixie-security main",
    ]
    assert len(apt_sources.for_suite("sid", found)) == 1


@given(st.text(alphabet=st.sampled_from("deb []=:\n#TypesURIsuitcombox/."), max_size=80))
def test_any_sources_are_read(text):
    for source in itertools.chain(apt_sources.parse_lines(text), apt_sources.parse_deb822(text)):
        assert "\n" not in source.line()
