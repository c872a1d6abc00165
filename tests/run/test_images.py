"""References become images: layouts, registries, directories, and packages."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bazaar.errors import ImageError
from bazaar.run import images
from bazaar.run.images import deb, registry, store
from tests.run.conftest import usable
from tests.run.layouts import Layout, archive, member, static_shell


def quiet(_: str) -> None:
    pass


@pytest.fixture
def layout(tmp_path) -> Layout:
    return Layout(tmp_path / "layout")


def test_a_layout_becomes_layers_with_its_configuration(layout, cache):
    layout.image(
        archive(member("etc/a", data=b"1"), member("etc/b", data=b"2")),
        archive(member("etc/.wh.a")),
        Entrypoint=["/bin/tool"],
        Cmd=["-x"],
        Env=["A=1", "B=x=y"],
        WorkingDir="/srv",
        User="7:8",
        StopSignal="SIGQUIT",
        ExposedPorts={"80/tcp": {}, "53/udp": {}},
    )
    image = images.ensure(f"oci:{layout.folder}", quiet)
    assert not image.cached and len(image.layers) == 2 and image.size == 2
    config = image.config
    assert (config.entrypoint, config.command) == (("/bin/tool",), ("-x",))
    assert config.environment == (("A", "1"), ("B", "x=y"))
    assert (config.working_directory, config.user, config.stop_signal) == ("/srv", "7:8", "SIGQUIT")
    assert config.exposed_ports == (80,)
    again = images.ensure(f"oci:{layout.folder}", quiet)
    assert again.cached and again.layers == image.layers
    assert [one.reference for one in images.listing()] == [f"oci:{layout.folder}"]


def test_layers_are_shared_and_go_with_their_last_image(tmp_path, cache):
    base, one, two = (archive(member(name, data=b"x")) for name in ("base", "one", "two"))
    for name, top in (("one", one), ("two", two)):
        Layout(tmp_path / name).image(base, top)
    first = images.ensure(f"oci:{tmp_path}/one", quiet)
    second = images.ensure(f"oci:{tmp_path}/two", quiet)
    assert first.layers[0] == second.layers[0] and first.layers[1] != second.layers[1]
    assert images.remove(first.reference)
    assert second.layers[0].is_dir() and not first.layers[1].exists()
    assert images.remove(second.reference) and not second.layers[0].exists()
    assert not images.remove(second.reference)


def test_a_setuid_file_of_an_image_is_out_of_reach_of_other_users(layout, cache):
    cache.mkdir(mode=0o755)
    layout.image(archive(member("bin/tool", data=b"#!", mode=0o4755)))
    image = images.ensure(f"oci:{layout.folder}", quiet)
    assert mode_of(image.layers[0] / "bin/tool") == 0o4755
    assert mode_of(cache / "layers") == 0o700
    # A folder from before the rule is closed when an image of it is next looked for.
    store.layers().chmod(0o755)
    assert store.find(image.reference) is not None
    assert mode_of(cache / "layers") == 0o700


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_what_a_killed_builder_left_goes_with_the_next_build(cache):
    with store.building() as at_work:
        stale = store.layers() / ".building-stale"
        (stale / "root").mkdir(parents=True)
        for folder in (stale, at_work):
            os.utime(folder, (1, 1))
        with store.building():
            assert not stale.exists() and at_work.exists()
    assert list(store.layers().iterdir()) == []


def test_tags_and_machines_are_chosen(layout, cache):
    entry = layout.image(archive(member("x")), tag="one")
    other = {**entry, "platform": {"architecture": "s390x", "os": "linux"}}
    layout.index(other, entry)
    assert images.ensure(f"oci:{layout.folder}:one", quiet).digest == entry["digest"]
    with pytest.raises(ImageError, match="no such image"):
        images.ensure(f"oci:{layout.folder}:two", quiet)
    layout.index(other)
    with pytest.raises(ImageError, match="no version of it for linux"):
        images.ensure(f"oci:{layout.folder}", quiet, pull="always")


def test_what_has_another_digest_is_refused(layout, cache):
    entry = layout.image(archive(member("x", data=b"1")))
    for blob in sorted((layout.folder / "blobs/sha256").iterdir()):
        whole = blob.read_bytes()
        blob.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(ImageError, match="damaged"):
            images.ensure(f"oci:{layout.folder}", quiet)
        blob.unlink()
        with pytest.raises(ImageError, match="missing"):
            images.ensure(f"oci:{layout.folder}", quiet)
        blob.write_bytes(whole)
    assert images.ensure(f"oci:{layout.folder}", quiet).digest == entry["digest"]


def test_a_layer_that_is_not_what_the_configuration_says(layout, cache):
    entry = layout.image(archive(member("x", data=b"1")))
    manifest = json.loads((layout.folder / "blobs/sha256" / entry["digest"][7:]).read_text())
    from tests.run.layouts import compress

    other = compress(archive(member("y")), "gzip")
    manifest["layers"][0] |= layout.blob(other)
    layout.index({**entry, **layout.blob(json.dumps(manifest).encode())})
    with pytest.raises(ImageError, match="not what its configuration says"):
        images.ensure(f"oci:{layout.folder}", quiet)
    assert not any(path.is_dir() for path in store.layers().iterdir())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["manifests", "digest", "layers", "config", "rootfs", "platform"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@given(index=JSON, tag=st.sampled_from(["", "x"]))
def test_any_index_is_an_image_or_an_error(tmp_path_factory, index, tag):
    from bazaar.run.images import oci

    layout = Layout(tmp_path_factory.mktemp("any") / "layout")
    (layout.folder / "index.json").write_text(json.dumps(index))
    with pytest.raises(ImageError):
        oci.load(layout.folder, tag, "any", quiet)


@given(document=JSON)
def test_any_manifest_is_an_image_or_an_error(tmp_path_factory, document):
    from bazaar.run.images import oci

    layout = Layout(tmp_path_factory.mktemp("any") / "layout")
    layout.index({**layout.blob(json.dumps(document).encode())})
    with pytest.raises(ImageError):
        oci.load(layout.folder, "", "any", quiet)


def test_a_directory_is_an_image(tmp_path):
    with pytest.raises(ImageError, match="there is no directory"):
        images.ensure(f"dir:{tmp_path}/none", quiet)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sh").touch()
    image = images.ensure(f"dir:{tmp_path}", quiet)
    assert image.layers == (tmp_path,) and image.config.command == ("/bin/sh",)


def test_records_cut_short_are_no_images(layout, cache):
    layout.image(archive(member("x")))
    image = images.ensure(f"oci:{layout.folder}", quiet)
    record = next((cache / "images").iterdir())
    whole = record.read_text().rstrip()  # the last newline is no loss
    for cut in range(0, len(whole), 7):
        record.write_text(whole[:cut])
        assert store.find(image.reference) is None and images.listing() == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("localhost:5000/x", True),
        ("127.0.0.1:5000/x:tag", True),
        ("127.9.9.9/x", True),
        ("[::1]:5000/x", True),
        ("localhost/x", True),
        ("localhost", False),
        ("localhost.example.org/x", False),
        ("127.0.0.1.example.org:5000/x", False),
        ("example.org/localhost:5000/x", False),
        ("alpine", False),
        ("192.168.0.1:5000/x", False),
    ],
)
def test_plain_http_is_for_loopback_alone(name, expected):
    assert registry.loopback(name) is expected


@pytest.mark.parametrize(
    "name", ["", "-x", "UPPER", "a b", "x:", "x@sha256:12", "a//b", "--insecure", "x\ny"]
)
def test_what_is_no_image_is_said(name, cache):
    with pytest.raises(ImageError, match="is no image"):
        images.ensure(name, quiet)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def docker_registry(tmp_path):
    """Debian's docker-registry on loopback; its port."""
    program = next((path for path in ("/usr/bin/docker-registry",) if Path(path).exists()), None)
    if program is None:
        pytest.skip("docker-registry is not installed")
    port = free_port()
    config = tmp_path / "registry.yml"
    config.write_text(
        f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {tmp_path}/registry\n"
        f"http:\n  addr: 127.0.0.1:{port}\n"
    )
    process = subprocess.Popen(
        [program, "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            assert time.monotonic() < deadline and process.poll() is None, (
                "the registry did not start"
            )
            time.sleep(0.05)
    yield port
    process.terminate()
    process.wait(10)


def test_an_image_of_a_registry_is_pulled_and_run(docker_registry, layout, cache, state):
    usable("gvisor")
    layout.image(
        archive(*static_shell()),
        archive(member("word", data=b"from the registry\n")),
        Cmd=["/bin/cat", "/word"],
    )
    name = f"localhost:{docker_registry}/stall/x:one"
    subprocess.run(
        [
            "skopeo",
            "--insecure-policy",
            "copy",
            "--quiet",
            "--dest-tls-verify=false",
            f"oci:{layout.folder}:latest",
            f"docker://{name}",
        ],
        check=True,
    )
    command = [sys.executable, "-m", "bazaar", "run", "--network", "none"]
    for words in ([name], [f"docker://{name}", "--", "/bin/cat", "/word"]):
        done = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "from the registry\n", "")
    missing = subprocess.run(
        [*command, f"localhost:{docker_registry}/stall/y"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert missing.returncode == 125 and "the registry has no such image" in missing.stderr


def test_a_registry_that_is_not_there(cache):
    with pytest.raises(ImageError, match="cannot be reached"):
        images.ensure(f"127.0.0.1:{free_port()}/x", quiet)
    with pytest.raises(ImageError, match="not on this machine"):
        images.ensure("localhost:1/x", quiet, pull="never")


@pytest.mark.parametrize(
    ("reference", "suite", "packages"),
    [
        ("deb://bookworm", "bookworm", ()),
        ("deb://bookworm?packages=zz,aa,zz", "bookworm", ("aa", "zz")),
        ("deb://trixie?packages=g++,libstdc++6", "trixie", ("g++", "libstdc++6")),
    ],
)
def test_deb_references(reference, suite, packages):
    assert deb.parse(reference) == deb.Reference(suite, packages)


@pytest.mark.parametrize(
    "reference",
    [
        "deb://",
        "deb://../x",
        "deb://book worm",
        "deb://bookworm/x",
        "deb://bookworm?package=x",
        "deb://bookworm?packages=-x",
        "deb://bookworm?packages=a;b",
        "deb://bookworm?packages=--allow",
    ],
)
def test_wrong_deb_references(reference):
    with pytest.raises(ImageError):
        deb.parse(reference)


@given(st.text(max_size=30))
def test_any_deb_reference_is_read_or_refused(text):
    try:
        found = deb.parse("deb://" + text)
    except ImageError:
        return
    assert all(not name.startswith("-") and "/" not in name for name in found.packages)
    assert not found.suite.startswith("-")


@pytest.fixture(scope="session")
def hello():
    """The one image of packages that plain tests share; in the machine's own cache."""
    if os.geteuid() != 0 or not Path("/usr/bin/mmdebstrap").exists():
        pytest.skip("mmdebstrap, or root, is missing")
    suite = next(
        line.split("=")[1]
        for line in Path("/etc/os-release").read_text().splitlines()
        if line.startswith("VERSION_CODENAME=")
    )
    return images.ensure(f"deb://{suite}?packages=hello", quiet)


def test_packages_become_two_layers(hello):
    base, top = hello.layers
    assert (top / "usr/bin/hello").exists() and not (base / "usr/bin/hello").exists()
    manifest = json.loads(top.with_name(top.name + ".json").read_text())
    assert any(line.startswith("hello ") for line in manifest["versions"]) and manifest["releases"]
    policy = base / "usr/sbin/policy-rc.d"
    assert policy.stat().st_mode & 0o111 and "exit 101" in policy.read_text()
    assert not list((base / "etc/apt/apt.conf.d").glob("*mmdebstrap")), (
        "how we reach the archive stays here"
    )
    assert not any((top / "var/cache/apt").glob("*.bin"))


def test_a_program_that_is_missing_says_which_package(hello, state):
    command = [
        sys.executable,
        "-m",
        "bazaar",
        "run",
        "--network",
        "none",
        hello.reference,
        "--",
        "python3",
        "-V",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 127
    assert done.stderr.splitlines() == [
        f"bazaar: python3: not found in {hello.reference}",
        f"        the image has no such program; add it: {hello.reference},python3",
    ]


def test_packages_that_are_not_there(hello):
    reference = hello.reference + ",no-such-package-anywhere"
    with pytest.raises(ImageError, match="has no package no-such-package-anywhere"):
        images.ensure(reference, quiet)
    assert store.find(reference) is None


@pytest.mark.slow
def test_another_suite_is_made_from_the_same_archive(state):
    image = images.ensure("deb://trixie", quiet)
    assert (image.layers[0] / "etc/debian_version").read_text().startswith("13")
