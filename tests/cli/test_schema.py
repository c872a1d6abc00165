"""`bazaar schema`, as an editor's user calls it."""

from __future__ import annotations

import json

from bazaar.cli.main import main
from bazaar.spec import schema


def test_it_prints_the_schema_as_one_json_document(capsys):
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == schema()
