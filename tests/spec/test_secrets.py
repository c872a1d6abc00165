"""An absent secret is a mistake at its place in the description, like any other."""

from __future__ import annotations

import pytest

from bazaar import spec
from bazaar.cli.main import main
from bazaar.errors import MissingError, SpecError
from bazaar.up import client

TEXT = """bazaar: shop
services:
  web:
    stand: apache
    environment:
      TOKEN: {env: SHOP_TOKEN}
      KEY:
        file: key
      BINARY: {file: binary}
    replicas: many
"""


def problems(path, **options) -> list[str]:
    with pytest.raises(SpecError) as caught:
        spec.load(path, **options)
    return [str(problem) for problem in caught.value.problems]


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.delenv("SHOP_TOKEN", raising=False)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    path = tmp_path / "shop.yaml"
    path.write_text(TEXT)
    return path


def test_absent_ones_are_told_with_line_and_column_beside_other_mistakes(file):
    first, second, third, other = problems(file, secrets=True)
    where = "services.web.environment"
    assert first == (
        f"{file}:6:20  {where}.TOKEN.env: the environment has no variable SHOP_TOKEN; "
        "export it and run the same again"
    )
    assert second.startswith(f"{file}:8:15  {where}.KEY.file: cannot read {file.parent / 'key'}: ")
    assert third.startswith(f"{file}:9:22  {where}.BINARY.file: ") and "UTF-8" in third
    assert other.startswith(f"{file}:10:15  services.web.replicas: 'many'")


def test_they_are_looked_for_only_when_it_is_asked_for(file):
    [only] = problems(file)
    assert "replicas" in only


def test_those_that_are_there_are_no_mistake(file, monkeypatch):
    monkeypatch.setenv("SHOP_TOKEN", "")
    (file.parent / "key").write_text("k\n")
    (file.parent / "binary").write_text("b\n")
    file.write_text(TEXT.replace("many", "2"))
    wanted = spec.resolve(spec.load(file, secrets=True))
    assert client.read_secrets(wanted) == {"web": {"TOKEN": "", "KEY": "k", "BINARY": "b"}}


def test_a_description_in_python_has_its_file_named(tmp_path, monkeypatch):
    monkeypatch.delenv("SHOP_TOKEN", raising=False)
    path = tmp_path / "shop.py"
    path.write_text(
        "from bazaar import Bazaar, Service\n"
        'shop = Bazaar("shop", services=[Service("web", stand="apache",'
        ' environment={"TOKEN": {"env": "SHOP_TOKEN"}})])\n'
    )
    [only] = problems(path, secrets=True)
    assert only.startswith(f"{path}  services.web.environment.TOKEN.env: the environment has no")


def test_plan_says_so_and_changes_nothing(file, state, capsys):
    file.write_text(TEXT.replace("many", "2"))
    assert main(["plan", str(file)]) == 2
    said = capsys.readouterr()
    assert said.out == "" and f"{file}:6:20  " in said.err
    assert "3 errors, nothing was changed." in said.err


def test_without_a_file_the_service_and_the_variable_are_named(file, monkeypatch):
    file.write_text(TEXT.replace("many", "2"))
    wanted = spec.resolve(spec.load(file))
    with pytest.raises(MissingError, match=r"services\.web\.environment\.TOKEN: the environment"):
        client.read_secrets(wanted)
