"""Downloads: lists of checksums, and what is not as it should be."""

import hashlib

import pytest

from bazaar.errors import ChecksumError, MissingError, StateError
from bazaar.host import downloads

DIGEST = "ab" * 32


def silent(_: str) -> None:
    pass


@pytest.mark.parametrize(
    "text",
    [
        DIGEST,
        f"{DIGEST.upper()}\n",
        f"{'0' * 64}  other\n{DIGEST}  file\n",
        f"{DIGEST} *file\n",
        f"{DIGEST}  ./folder/file\n",
        "cd" * 64 + f"  other\n{DIGEST}  file\n",
    ],
)
def test_lists_of_checksums(tmp_path, text):
    (tmp_path / "list").write_text(text)
    assert downloads.checksum((tmp_path / "list").as_uri(), "file") == DIGEST


@pytest.mark.parametrize(
    "text",
    ["", "\n", "<html>", DIGEST[1:], f"{DIGEST}  other\n", f"{DIGEST}\n{DIGEST}\n", "\xff\0"],
)
def test_lists_without_the_checksum(tmp_path, text):
    (tmp_path / "list").write_text(text)
    with pytest.raises(ChecksumError, match="no checksum of file"):
        downloads.checksum((tmp_path / "list").as_uri(), "file")


def fetch(tmp_path, data: bytes, wanted: str) -> None:
    (tmp_path / "source").write_bytes(data)
    source = (tmp_path / "source").as_uri()
    downloads.fetch(source, tmp_path / "target", wanted, silent, what="it")


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_file_of_the_right_checksum_is_taken(tmp_path, algorithm):
    fetch(tmp_path, b"data", hashlib.new(algorithm, b"data").hexdigest())
    assert (tmp_path / "target").read_bytes() == b"data"


def test_another_file_is_refused(tmp_path):
    with pytest.raises(ChecksumError, match=r"it: file:.* 3a6eb0790f39ac87… is wanted"):
        fetch(tmp_path, b"other", hashlib.sha256(b"data").hexdigest())
    assert not (tmp_path / "target").exists()


def test_a_file_that_is_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "LARGEST", 3)
    with pytest.raises(MissingError, match="larger than"):
        fetch(tmp_path, b"data", hashlib.sha256(b"data").hexdigest())
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("source", ["http://127.0.0.1:9/x", "nonsense", "file:///nowhere/x"])
def test_what_cannot_be_had_is_named(tmp_path, source):
    with pytest.raises(MissingError, match=f"{source} cannot be had"):
        downloads.fetch(source, tmp_path / "target", DIGEST, silent, what="it")


def test_a_full_disk_is_no_fault_of_the_source(tmp_path):
    (tmp_path / "source").write_bytes(b"data")
    (tmp_path / "target").symlink_to("/dev/full")
    with pytest.raises(StateError, match="target: cannot be written: No space left"):
        downloads.fetch(
            (tmp_path / "source").as_uri(), tmp_path / "target", DIGEST, silent, what="it"
        )


@pytest.mark.parametrize(
    ("length", "said"), [("100", "cut short after 4 of 100|IncompleteRead"), ("many", "'many'")]
)
def test_a_transfer_that_is_cut_short_is_no_wrong_checksum(tmp_path, length, said):
    import socket
    import threading

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nhalf".encode())

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        source = f"http://127.0.0.1:{server.getsockname()[1]}/x"
        with pytest.raises(MissingError, match=said):
            downloads.fetch(source, tmp_path / "target", DIGEST, silent, what="it")
        thread.join()
    assert not (tmp_path / "target").exists()
