"""The host's name servers, as they can be asked from elsewhere."""

from pathlib import Path

import pytest

from bazaar.host import resolvers

WORLD = "192.0.2.1"


@pytest.mark.parametrize(
    ("own", "resolved", "chosen", "usable"),
    [
        (f"nameserver {WORLD}\noptions edns0\n", "nameserver 192.0.2.9\n", "own", [WORLD]),
        (f"nameserver 127.0.0.53\nnameserver {WORLD}\n", "", "own", [WORLD]),
        ("nameserver 127.0.0.53\n", f"nameserver {WORLD}\n", "resolved", [WORLD]),
        ("nameserver 127.0.0.53\nnameserver\n", None, "own", []),
        (None, f"# nameserver 192.0.2.9\nnameserver {WORLD}\n", "resolved", [WORLD]),
        ("nameserver fd00::1\n", "", "own", []),
    ],
)
def test_loopback_name_servers_are_of_no_use_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own, resolved, chosen, usable
):
    files = (tmp_path / "own", tmp_path / "resolved")
    for file, text in zip(files, (own, resolved), strict=True):
        if text is not None:
            file.write_text(text)
    monkeypatch.setattr(resolvers, "_FILES", files)
    assert resolvers.of_host() == usable
    assert resolvers.file().name == chosen
    assert resolvers.resolv_conf() == "".join(f"nameserver {one}\n" for one in usable)
