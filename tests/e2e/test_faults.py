"""What a machine can do to `up`: each has a message that helps, and leaves old or new."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import tempfile

import pytest

from tests.e2e.conftest import ROOT, WEB, Instance, named_namespaces

pytestmark = pytest.mark.xdist_group("e2e")

SPEC = """
sites: {u: {}}
services:
  web:
    image: __WEB__
    command: [python3, -m, http.server, "8000"]
    port: 8000
    mode: http
""".replace("__WEB__", WEB)


@pytest.fixture
def bazaar(tmp_path, request):
    made = Instance(f"f{os.getpid()}-{abs(hash(request.node.name)) % 1000}", tmp_path)
    yield made
    made.run("down", made.name, "--volumes", "--yes", check=False)


def refused(bazaar, *words, code=1):
    """Run `up`, which must refuse with these words and change nothing."""
    done = bazaar.run("up", str(bazaar.file), check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
    assert [name for name in named_namespaces() if bazaar.name in name] == []
    return done


def test_a_taken_port_names_its_holder(bazaar):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        bazaar.write(SPEC + f"    publish: {port}\n")
        refused(bazaar, f"port {port} of 127.0.0.1", f"pid {os.getpid()}")


def test_a_taken_subnet_names_its_holder(bazaar):
    name = f"tx{os.getpid()}"
    subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=True)
    try:
        subprocess.run(["ip", "address", "add", "10.211.3.1/24", "dev", name], check=True)
        subprocess.run(["ip", "link", "set", name, "up"], check=True)
        bazaar.write(f"subnet: 10.211.0.0/16\n{SPEC}")
        refused(bazaar, "10.211.", name)
    finally:
        subprocess.run(["ip", "link", "delete", name], check=True)


def test_an_unknown_image_is_refused(bazaar):
    bazaar.write(SPEC.replace("python3\n", "no-such-package-at-all\n", 1))
    done = bazaar.run("up", str(bazaar.file), check=False)
    assert done.returncode == 1
    assert "no-such-package-at-all" in done.stderr
    assert "Traceback" not in done.stderr
    assert [name for name in named_namespaces() if bazaar.name in name] == []


def test_an_absent_secret_is_named(bazaar):
    bazaar.write(SPEC + "    environment: {PASSWORD: {env: NOBODY_SET_THIS}}\n")
    refused(bazaar, "services.web.environment.PASSWORD", "NOBODY_SET_THIS", code=2)


def test_an_absent_certificate_is_named(bazaar):
    bazaar.write(SPEC + "    certificate: /nowhere/site.pem\n")
    refused(bazaar, "/nowhere/site.pem")


KEY = "openssl req -x509 -newkey rsa:2048 -days 2 -subj /CN=x -keyout {0}/key -out {0}/cert"


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("garbage", "it is no certificate with its key"),
        ("no key", "it is no certificate with its key"),
        ("another key", "its key is another's"),
        ("encrypted", "its key is encrypted"),
    ],
)
def test_a_certificate_that_cannot_be_served_is_named(bazaar, kind, why):
    pem = bazaar.folder / "site.pem"
    words = KEY.format(bazaar.folder).split()
    secret = ["-passout", "pass:secret"] if kind == "encrypted" else ["-nodes"]
    subprocess.run([*words, *secret], check=True, capture_output=True)
    parts = {"garbage": [], "no key": ["cert"], "another key": ["cert"]}.get(kind, ["cert", "key"])
    if kind == "another key":
        subprocess.run(f"openssl genrsa -out {pem}.key".split(), check=True, capture_output=True)
        parts.append(f"{pem.name}.key")
    pem.write_text("".join((bazaar.folder / part).read_text() for part in parts) or "nothing\n")
    bazaar.write(SPEC + f"    certificate: {pem}\n")
    refused(bazaar, f"services.web.certificate: {pem} cannot be used", why)
    assert not (bazaar.folder / "state/bazaars" / bazaar.name).exists()


def test_a_changed_subnet_is_refused_while_it_is_up(bazaar):
    bazaar.write(SPEC)
    bazaar.up()
    subnet = bazaar.status()["sites"][0]["subnet"]  # 10.N.1.0/24
    whole = f"{subnet.rpartition('.1.')[0]}.0.0/16"
    for changed, message in (
        (f"subnet: 10.253.0.0/16\n{SPEC}", f"is up with {whole}, not 10.253.0.0/16"),
        (
            f"subnet: {whole}\n"
            + SPEC.replace("{u: {}}", f"{{u: {{subnet: {subnet.replace('.1.0', '.7.0')}}}}}"),
            f"sites.u.subnet: the site is up with {subnet}",
        ),
        (
            f"subnet: {whole}\n" + SPEC.replace("{u: {}}", f"{{u: {{}}, k: {{subnet: {subnet}}}}}"),
            f"sites.k.subnet: the site u is up with {subnet}",
        ),
    ):
        bazaar.write(changed)
        for command in ("plan", "up"):
            done = bazaar.run(command, str(bazaar.file), check=False)
            assert done.returncode == 1
            assert message in done.stderr
            assert "`bazaar down` first" in done.stderr
    bazaar.write(f"subnet: {whole}\n{SPEC}")
    assert "No changes." in bazaar.run("up", str(bazaar.file)).stdout


def test_a_full_disk(bazaar):
    state = bazaar.folder / "state"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(state)], check=True)
    try:
        (state / "filler").write_bytes(bytes(60 << 10))
        bazaar.write(SPEC)
        done = bazaar.run("up", str(bazaar.file), check=False)
        assert done.returncode == 1
        assert "no space left" in done.stderr
        assert "Traceback" not in done.stderr
        bazaar.run("down", bazaar.name, check=False)
        assert [name for name in named_namespaces() if bazaar.name in name] == []
    finally:
        subprocess.run(["umount", "-l", str(state)], check=True)


def test_without_root_it_says_so(bazaar):
    bazaar.write(SPEC)
    nobody = pwd.getpwnam("nobody").pw_uid
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", dir="/tmp") as file:
        file.write(bazaar.file.read_text())
        file.flush()
        os.chmod(file.name, 0o644)
        done = _as(nobody, file.name)
    assert done.returncode == 1
    assert "root" in done.stderr
    assert "Traceback" not in done.stderr


def _as(user, file):
    return subprocess.run(
        [str(ROOT / ".venv/bin/python"), "-I", "-m", "bazaar", "up", file],
        capture_output=True,
        text=True,
        user=user,
        group=user,
        extra_groups=[],
        cwd="/",
        env={"PATH": os.environ["PATH"], "XDG_STATE_HOME": "/tmp/nobody-state"},
        check=False,
    )


def test_killed_while_going_down_then_down_again(bazaar):
    bazaar.write(SPEC)
    bazaar.up()
    for pause in (0.3, 0.5):
        process = bazaar.start("down", bazaar.name)
        try:
            process.communicate(timeout=pause)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
    bazaar.run("down", bazaar.name, check=False)
    assert not (bazaar.folder / "state" / "bazaars" / bazaar.name).exists()
    assert [name for name in named_namespaces() if bazaar.name in name] == []
