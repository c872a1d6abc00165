"""Certificates by openssl's judgement, and their rest under seal."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from bazaar.cluster import pki, rotation, vault
from bazaar.errors import StateError
from bazaar.model.record import replace
from tests.cluster.conftest import cluster, keys


def openssl(*words: str, text: str = "") -> str:
    done = subprocess.run(
        ["openssl", *words], input=text, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_each_is_signed_by_its_authority_and_its_key_fits(tmp_path: Path):
    of = cluster(3, 1)
    held = keys(of)
    seen = 0
    for node in of.nodes:
        for request in pki.requests(of, node):
            pair = held["pairs"][f"{node.name}/{request.name}"]
            authority = tmp_path / "ca"
            authority.write_text(held["authorities"][request.authority]["certificate"])
            own = tmp_path / "own"
            own.write_text(pair["certificate"])
            purpose = "sslserver" if request.server else "sslclient"
            openssl("verify", "-CAfile", str(authority), "-purpose", purpose, str(own))
            public = openssl("x509", "-noout", "-pubkey", text=pair["certificate"])
            assert public == openssl("pkey", "-pubout", text=pair["key"])
            subject = openssl(
                "x509", "-noout", "-subject", "-nameopt", "multiline", "-in", str(own)
            )
            assert f"commonName                = {request.subject}\n" in subject
            seen += 1
    assert seen == 4 * 4 + 3 * 12


def test_the_api_server_is_known_by_all_its_names():
    of = cluster(3, 0, endpoint="api.example.org")
    held = pki.renewed({}, of, time.time())
    text = openssl(
        *("x509", "-noout", "-ext", "subjectAltName"),
        text=held["pairs"]["cp2/apiserver"]["certificate"],
    )
    for name in ("kubernetes.default.svc.cluster.local", "api.example.org", "10.96.0.1"):
        assert name in text
    assert "10.1.0.12" in text and "10.1.0.11" not in text


def test_what_serves_is_kept_and_what_ends_soon_is_not():
    of = cluster(1, 1)
    held = keys(of)
    now = time.time()
    assert pki.renewed(held, of, now) == held
    soon = pki.renewed(held, of, now + (pki.DAYS - pki.RENEW_DAYS + 1) * 86400)
    assert soon["authorities"] == held["authorities"]
    for name, pair in soon["pairs"].items():
        assert pair != held["pairs"][name]


def test_another_name_is_another_certificate():
    of = cluster(1, 1)
    held = keys(of)
    renamed = replace(of, endpoint="api.example.org")
    new = pki.renewed(held, renamed, time.time())
    changed = {name for name in held["pairs"] if held["pairs"][name] != new["pairs"][name]}
    assert changed == {"cp1/apiserver"}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(vault.KEY_FILE, str(tmp_path / "settings" / "key"))
    monkeypatch.delenv(vault.PASSPHRASE, raising=False)
    return tmp_path


def test_sealed_by_a_key_file_that_is_made_once(settings: Path):
    path = settings / "keys.json"
    assert vault.unseal(path) is None
    vault.seal(path, {"secret": "swordfish"})
    assert "swordfish" not in path.read_text()
    assert vault.unseal(path) == {"secret": "swordfish"}
    key = settings / "settings" / "key"
    assert key.stat().st_mode & 0o777 == 0o600
    key.write_text("0" * 64)
    with pytest.raises(StateError, match="not the one it was sealed by"):
        vault.unseal(path)
    key.unlink()
    with pytest.raises(StateError, match="the key file .* is not there"):
        vault.unseal(path)
    assert not key.exists()  # reading makes none


def test_sealed_by_a_passphrase(settings: Path, monkeypatch: pytest.MonkeyPatch):
    path = settings / "keys.json"
    monkeypatch.setenv(vault.PASSPHRASE, "correct horse")
    vault.seal(path, {"a": 1})
    assert vault.unseal(path) == {"a": 1}
    assert not (settings / "settings").exists()
    monkeypatch.setenv(vault.PASSPHRASE, "wrong")
    with pytest.raises(StateError, match="not the one"):
        vault.unseal(path)
    monkeypatch.delenv(vault.PASSPHRASE)
    with pytest.raises(StateError, match="sealed by a passphrase"):
        vault.unseal(path)


@pytest.mark.parametrize("text", ["{}", '{"salt": 1}', "[]", '{"salt":"!","nonce":"","sealed":""}'])
def test_what_is_no_vault_is_told(settings: Path, text: str):
    (settings / "keys.json").write_text(text)
    with pytest.raises(StateError):
        vault.unseal(settings / "keys.json")


def test_new_authorities_are_trusted_before_they_are_used_and_the_old_are_dropped():
    of = cluster(1, 1)
    first = keys(of)
    old = {name: one["certificate"] for name, one in first["authorities"].items()}
    now = time.time()
    trust = pki.renewed(rotation.turned(first), of, now)
    assert rotation.stage(trust) == "trust" and trust["pairs"] == first["pairs"]
    issue = pki.renewed(rotation.turned(trust), of, now)
    assert rotation.stage(issue) == "issue"
    assert all(issue["pairs"][name] != pair for name, pair in first["pairs"].items())
    last = pki.renewed(rotation.turned(issue), of, now)
    assert rotation.stage(last) == "" and last["pairs"] == issue["pairs"]
    for name, certificate in old.items():
        new = last["authorities"][name]["certificate"]
        assert pki.trusted(trust["authorities"][name]) == certificate + new
        assert pki.trusted(issue["authorities"][name]) == new + certificate
        assert pki.trusted(last["authorities"][name]) == new
        assert trust["authorities"][name]["key"] == first["authorities"][name]["key"]
    assert last["encryption"] == first["encryption"]
