"""What of a tree here is to be copied to a machine."""

import os

import pytest

from bazaar.errors import UsageError
from bazaar.host import trees


def test_a_folder_that_cannot_be_read_is_told(tmp_path, monkeypatch):
    (tmp_path / "shut").mkdir()
    (tmp_path / "shut" / "file").write_text("left behind")
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UsageError, match="/shut: Permission denied"):
        trees.entries(tmp_path, "/srv/x")
