"""Debian's packages, asked of this machine's own dpkg and apt."""

from __future__ import annotations

import os
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bazaar.errors import CommandError, MissingError
from bazaar.host import packages

debian = pytest.mark.skipif(
    not packages.system().debian, reason="needs Debian or Ubuntu: dpkg and apt"
)
root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: apt installs")


@pytest.mark.parametrize(
    ("text", "identity", "is_debian"),
    [
        ('ID=debian\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n', "debian", True),
        ("ID=ubuntu\nID_LIKE=debian\n", "ubuntu", True),
        ('ID=linuxmint\nID_LIKE="ubuntu debian"\n', "linuxmint", True),
        ('ID="fedora"\nID_LIKE=""\n', "fedora", False),
        ("# nothing\n\n", "linux", False),
    ],
)
def test_a_system_by_its_os_release(tmp_path, text, identity, is_debian):
    (tmp_path / "os-release").write_text(text)
    system = packages.system(tmp_path / "os-release")
    assert (system.id, system.debian) == (identity, is_debian)


def test_a_system_that_does_not_say(tmp_path):
    system = packages.system(tmp_path / "nowhere")
    assert (system.id, system.name, system.debian) == ("linux", "linux", False)


@given(st.binary(max_size=300))
def test_any_os_release_is_read(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / f"os-release-{os.getpid()}"
    path.write_bytes(content)
    assert packages.system(path).id is not None


@debian
def test_what_is_installed_is_not_missing():
    assert packages.missing(["dpkg", "no-such-package", "apt", "no-such-package"]) == [
        "no-such-package"
    ]
    assert packages.missing([]) == []


@debian
def test_a_package_that_was_removed_is_missing(tmp_path, monkeypatch):
    """dpkg remembers its configuration files: it knows the name, and it is not installed."""
    status = (
        "Package: {}\nStatus: {}\nVersion: 1\nArchitecture: all\nMaintainer: n\nDescription: n\n"
    )
    (tmp_path / "status").write_text(
        status.format("gone", "deinstall ok config-files")
        + "\n"
        + status.format("there", "install ok installed")
    )
    (tmp_path / "info").mkdir()
    (tmp_path / "updates").mkdir()
    monkeypatch.setenv("DPKG_ADMINDIR", str(tmp_path))
    assert packages.missing(["gone", "there", "unheard-of"]) == ["gone", "unheard-of"]


@pytest.mark.parametrize("name", ["--force-yes", "a; id", "", "../x", "A", "a/../b", "-o"])
def test_a_name_that_is_none_never_reaches_apt(name):
    with pytest.raises(MissingError, match="is no package's name"):
        packages.missing([name])
    with pytest.raises(MissingError, match="is no package's name"):
        packages.install([name], lambda _: None)


@debian
def test_what_is_there_is_not_installed_again():
    said: list[str] = []
    assert packages.install(["dpkg", "apt"], said.append) == []
    assert said == []


def test_a_system_without_apt_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr(packages, "system", lambda: packages.System("fedora", (), "Fedora 42"))
    with pytest.raises(MissingError, match="Fedora 42 has no apt to install no-such-package by"):
        packages.install(["no-such-package"], lambda _: None)


@debian
def test_without_root_the_command_is_told(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(MissingError) as caught:
        packages.install(["no-such-package"], lambda _: None)
    assert caught.value.hint == "sudo apt-get install --no-install-recommends no-such-package"


@debian
@root
@pytest.mark.slow
@pytest.mark.alone
def test_a_package_is_installed_with_progress():
    if not packages.missing(["hello"]):
        pytest.skip("the package `hello` is on this machine already")
    said: list[str] = []
    try:
        assert packages.install(["hello"], said.append) == ["hello"]
        assert packages.missing(["hello"]) == []
    finally:
        subprocess.run(["apt-get", "-y", "-q", "purge", "hello"], check=True, capture_output=True)
    assert "apt: unpacking hello" in said
    assert "apt: setting up hello" in said


@debian
@root
@pytest.mark.slow
@pytest.mark.alone
def test_apts_own_words_are_the_reason():
    with pytest.raises(CommandError, match="Unable to locate package bazaar-has-no-such-package"):
        packages.install(["bazaar-has-no-such-package"], lambda _: None)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("Get:1 http://mirror.example/debian bookworm InRelease [151 kB]", "reading the lists"),
        ("Get:4 http://a/debian bookworm/main amd64 Packages [8792 kB]", "reading the lists"),
        (
            "Get:2 http://a/debian bookworm/main amd64 wrk amd64 4.1.0-3+b2 [194 kB]",
            "downloading wrk",
        ),
        ("Setting up wrk (4.1.0-3+b2) ...", "setting up wrk"),
        ("Reading package lists...", ""),
        ("Get:1 nothing", ""),
        ("Get:1", ""),
    ],
)
def test_lines_of_apt_as_progress(line, said):
    assert packages._telling(line).startswith(said)
    assert bool(packages._telling(line)) == bool(said)
