"""The command line of `bazaar run`, `ps`, `stop`, `rm` and `images`."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bazaar.cli import run, run_options, run_request
from bazaar.errors import UsageError
from tests.run.conftest import left, usable

WORDS = st.just("") | st.sampled_from(
    """
    -i -t -it -d --rm --name n -p 1:2 -p1:2 --publish
    -v /a:/b -v/a:/b --volume=/a:/b -e A=1 -eA --env -ite -w /x
    --engine gvisor shared --engine=shared --engine=docker -m 512m --cpus 0.5 --cpus=-1
    --cpus=x --pids-limit 7 0 --network none --read-only --read-only=1 --pull always -- -
    image -h -x --keep --entrypoint --interactive --nam --help -ti
    """.split()  # noqa: SIM905
)


def by_click(words: list[str]):
    try:
        context = run.command.make_context("run", list(words))
    except (click.exceptions.Exit, click.ClickException):
        return None
    with context:
        return run_request.Request(**context.params)


@given(st.lists(WORDS, max_size=8))
def test_both_readers_agree(words):
    quick = run_options.quick(words)
    if quick is not None:
        assert run_request.Request(**quick) == by_click(words)


@pytest.mark.parametrize(
    "words",
    [
        ["image"],
        ["-it", "--", "image", "sh", "-c", "x"],
        ["-e", "A=1", "--memory=1g", "image", "--", "-x"],
        ["-v", "/a:/b", "--cpus", "2", "x"],
    ],
)
def test_what_is_plain_is_read_without_click(words):
    assert run_options.quick(words) is not None


def test_every_field_has_an_option():
    fields = set(run_request.Request.__dataclass_fields__) - {"image", "words"}
    assert fields == {option.field for option in run_options.OPTIONS}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("512m", 512 << 20),
        ("2g", 2 << 30),
        ("1.5G", 3 << 29),
        ("8388608", 8 << 20),
        ("64MB", 64 << 20),
        ("64MiB", 64 << 20),
    ],
)
def test_sizes(text, expected):
    assert run_request.size(text) == expected


@pytest.mark.parametrize("text", ["", "x", "5", "1m", "-1g", "1 g", "1e9", "g", "٣g"])
def test_wrong_sizes(text):
    with pytest.raises(UsageError):
        run_request.size(text)


def bazaar(*words, **keywords):
    return subprocess.run(
        [sys.executable, "-m", "bazaar", *words],
        capture_output=True,
        text=True,
        check=False,
        **keywords,
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--nope", "x"], "--nope"),
        ([], "IMAGE"),
        (["-m", "1", "x"], "too little memory"),
        (["-m", "9" * 400, "x"], "more memory than there can be"),
        (["--cpus", "inf", "x"], "--cpus inf is no number of cores"),
        (["--cpus", "nan", "x"], "--cpus nan is no number of cores"),
        (["--pids-limit", "9" * 5000, "x"], "--pids-limit"),
        (["-v", "/etc/passwd/x:/y", "x"], "/etc/passwd/x cannot be made: Not a directory"),
        (["-v", f"/{'x' * 300}:/y", "x"], "cannot be made: File name too long"),
        (["-v", "x", "image"], "'x' is no volume"),
        (["-v", "/a:b", "image"], "no absolute path inside"),
        (["-v", "/a:/b/../c", "image"], "no absolute path inside"),
        (["-v", "a b:/c", "image"], "cannot name a volume"),
        (["-v", "here/a:/c", "image"], "a path is meant? ./here/a"),
        (["-w", "tmp", "image"], "'tmp' is no absolute path"),
        (["--mount", "type=nfs,source=/,target=/x", "image"], "unknown type 'nfs'"),
        (["--mount", "type=bind,source=/none/there,target=/x", "image"], "does not exist"),
        (["--mount", "typ=bind", "image"], "unknown word 'typ'"),
        (["--env-file", "/none/there", "image"], "/none/there"),
        (["-e", "=x", "image"], "is no variable"),
        (["-t", "-d", "image"], "no terminal"),
        (["-it", "image"], "the input is no terminal"),
        (["--engine", "docker", "image"], "docker"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_done(words, said, state):
    done = bazaar("run", *words, stdin=subprocess.DEVNULL)
    assert done.returncode == 2 and said in done.stderr and done.stdout == ""
    assert "Traceback" not in done.stderr


def test_help_costs_no_engine():
    done = bazaar("run", "--help")
    assert done.returncode == 0 and "--entrypoint" in done.stdout and "125" in done.stdout


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("UPPER", "is no image"),
        ("dir:/none/there", "no directory"),
        ("oci:/none", "no OCI image layout"),
        ("deb://x/y", "no suite"),
    ],
)
def test_an_unknown_image_is_125(image, said, state, cache_of_its_own):
    done = bazaar("run", "--network", "none", image)
    assert done.returncode == 125 and said in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("image", ["dir:/none/there", "oci:/none/there"])
def test_an_image_that_is_not_here_is_told_before_an_engine_is_looked_for(image, state, tmp_path):
    environment = {
        **os.environ,
        "BAZAAR_RUNSC": str(tmp_path / "none"),
        "BAZAAR_CACHE": str(tmp_path / "cache"),
    }
    done = bazaar("run", "--network", "none", image, env=environment)
    assert done.returncode == 125 and "/none/there" in done.stderr


@pytest.fixture
def cache_of_its_own(tmp_path, monkeypatch):
    from bazaar.run import engines

    monkeypatch.setenv("BAZAAR_RUNSC", str(engines.ensure("gvisor", lambda _: None)))
    monkeypatch.setenv("BAZAAR_CACHE", str(tmp_path / "cache"))


def test_named_volumes_are_out_of_reach_of_other_users(state):
    from bazaar.host import paths

    volumes = paths.state() / "volumes"
    volumes.mkdir(mode=0o755, parents=True)  # as from before they were closed
    usable("shared")
    words = ["run", "--engine", "shared", "--network", "none", "-v", "data:/data", "-u", "12:34"]
    volume = volumes / "data"
    volume.mkdir()
    os.chown(volume, 12, 34)
    done = bazaar(*words, "dir:/", "--", "/bin/sh", "-c", "echo kept >/data/file; cat /data/file")
    assert (done.stdout, done.returncode) == ("kept\n", 0), done.stderr
    assert stat.S_IMODE(volumes.stat().st_mode) == 0o700
    assert (volume / "file").stat().st_uid == 12


def test_a_detached_container_from_start_to_removal(state):
    usable("shared")
    name = f"t{os.getpid()}-{os.urandom(3).hex()}"
    words = [
        "run",
        "-d",
        "--engine",
        "shared",
        "--network",
        "none",
        "--name",
        name,
        "dir:/",
        "--",
        "/bin/sleep",
        "60",
    ]
    try:
        assert bazaar(*words).stdout == f"{name}\n"
        again = bazaar(*words)
        assert again.returncode == 125 and "is taken" in again.stderr
        [row] = json.loads(bazaar("ps", "-o", "json").stdout)
        assert (row["name"], row["status"], row["engine"], row["image"]) == (
            name,
            "running",
            "shared",
            "dir:/",
        )
        assert (
            row["pid"] > 0 and row["exit_code"] is None and row["command"] == ["/bin/sleep", "60"]
        )
        assert name in bazaar("ps").stdout
        refused = bazaar("rm", name)
        assert refused.returncode == 1 and "is running" in refused.stderr
        assert bazaar("stop", "-t", "0", name).stdout == f"{name}\n"
        assert bazaar("ps", "-q").stdout == "" and bazaar("ps", "-a", "-q").stdout == f"{name}\n"
        assert "exit 137" in bazaar("ps", "-a").stdout
        assert bazaar("rm", name).returncode == 0
    finally:
        bazaar("rm", "-f", name)
    assert json.loads(bazaar("ps", "-a", "-o", "json").stdout) == []
    assert not left(f"run.{name}")
    missing = bazaar("stop", name)
    assert missing.returncode == 1 and "there is no container" in missing.stderr


def test_a_replica_is_left_to_its_bazaar(state, tmp_path):
    from bazaar.host import paths

    folder = paths.containers() / "b.s.x.1"
    folder.mkdir(parents=True)
    (folder / "container.json").write_text(
        json.dumps(
            {"id": "b.s.x.1", "name": "s/x/1", "engine": "shared", "labels": {"bazaar": "b"}}
        )
    )
    done = bazaar("rm", "-f", "s/x/1")
    assert done.returncode == 1 and "a replica of the bazaar b" in done.stderr and folder.exists()
    done = bazaar("stop", "s/x/1")
    assert done.returncode == 1
    assert "its supervisor starts it again" in done.stderr
    assert "change the description to stop it" in done.stderr


def test_replicas_of_several_bazaars_are_told_apart(state):
    from bazaar.host import paths

    for bazaar_name in ("one", "two"):
        folder = paths.containers() / f"{bazaar_name}.db.u.1"
        folder.mkdir(parents=True)
        about = {"id": folder.name, "name": "db/u/1", "engine": "shared"}
        about["labels"] = {"bazaar": bazaar_name}
        (folder / "container.json").write_text(json.dumps(about))
        lines = [line.split()[:2] for line in bazaar("ps", "-a").stdout.splitlines()]
        if bazaar_name == "one":
            assert lines[0] == ["NAME", "IMAGE"]
    assert lines == [["NAME", "BAZAAR"], ["db/u/1", "one"], ["db/u/1", "two"]]


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("docsab", "docsab"),
        ("run.docsab", "docsab"),
        ("0123456789ab", "0123456789ab"),
        ("0123", "0123456789ab"),
        ("docsa", None),  # the beginning of a chosen name
        ("run.0123", None),
        ("", None),
        ("f0", None),  # two random ones begin so
        ("nobody", None),
    ],
)
def test_names_match_whole_and_random_ones_by_their_beginning(state, capsys, said, meant):
    from bazaar.cli import container_names
    from bazaar.host import paths

    for name in ("docsab", "0123456789ab", "f0cacc1a0001", "f0cacc1a0002"):
        folder = paths.containers() / f"run.{name}"
        folder.mkdir(parents=True)
        about = {"id": f"run.{name}", "name": name, "engine": "shared", "labels": {}}
        (folder / "container.json").write_text(json.dumps(about))
    chosen: list[str] = []
    code = container_names.each([said], lambda container, _: chosen.append(container))
    assert chosen == ([f"run.{meant}"] if meant else [])
    assert code == (0 if meant else 1)
    assert ("could be f0cacc1a0001, f0cacc1a0002" in capsys.readouterr().err) == (said == "f0")


def test_images_lists_and_removes(tmp_path, state, cache_of_its_own):
    from tests.run.layouts import Layout, archive, member

    layout = Layout(tmp_path / "layout")
    layout.image(archive(member("x", data=b"1" * 2_000_000)))
    reference = f"oci:{layout.folder}"
    assert json.loads(bazaar("images", "-o", "json").stdout) == []
    [row] = json.loads(bazaar("images", "--pull", reference, "-o", "json").stdout)
    assert (
        row["reference"] == reference
        and row["size"] == 2_000_000
        and row["digest"].startswith("sha256:")
    )
    assert "2 MB" in bazaar("images").stdout
    # A record under a name that is not its reference's is no second image.
    records = tmp_path / "cache" / "images"
    [record] = records.glob("*.json")
    (records / "other.json").write_bytes(record.read_bytes())
    assert bazaar("images").stdout.count(reference) == 1
    assert reference not in bazaar("images", "--remove", reference).stdout
    assert bazaar("images", "--remove", reference).returncode == 1
