"""Programs run by argument list: results, failures, time limits, daemons."""

import time
from pathlib import Path

import pytest

from bazaar.errors import CommandError, MissingError
from bazaar.host import commands


def test_output_errors_and_code_come_back():
    finished = commands.run(["sh", "-c", "cat; echo no >&2; exit 3"], text="hello", check=False)
    assert (finished.output, finished.errors, finished.code) == ("hello", "no\n", 3)


def test_large_input_and_output_do_not_block():
    text = "x" * 3_000_000
    assert commands.run(["cat"], text=text).output == text


def test_failure_tells_the_programs_last_words():
    with pytest.raises(CommandError, match=r"sh -c .*: disk is full") as caught:
        commands.run(["sh", "-c", "echo one >&2; echo disk is full >&2; exit 7"])
    assert caught.value.code == 7
    assert "one" in caught.value.output


def test_a_silent_failure_tells_code_or_signal():
    with pytest.raises(CommandError, match="exit 5"):
        commands.run(["sh", "-c", "exit 5"])
    with pytest.raises(CommandError, match="ended by SIGKILL") as caught:
        commands.run(["sh", "-c", "kill -9 $$"])
    assert caught.value.code == -9


def test_missing_program_names_its_package():
    with pytest.raises(MissingError, match="no-such-program is not installed") as caught:
        commands.run(["no-such-program"], package="imagined")
    assert "imagined" in str(caught.value)


def test_time_limit_ends_children_too(tmp_path: Path):
    mark = tmp_path / "mark"
    started = time.monotonic()
    with pytest.raises(CommandError, match=r"no end after 0\.2 s"):
        commands.run(["sh", "-c", f"(sleep 1; touch {mark}) & wait"], timeout=0.2)
    assert time.monotonic() - started < 0.9
    time.sleep(1.2)
    assert not mark.exists()


def test_a_daemon_left_behind_is_not_waited_for():
    started = time.monotonic()
    assert commands.run(["sh", "-c", "sleep 2 & echo started"]).output == "started\n"
    assert time.monotonic() - started < 1


def test_endless_output_is_cut_off(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(commands, "_OUTPUT_LIMIT", 1 << 20)
    with pytest.raises(CommandError, match="more than 1 MiB of output"):
        commands.run(["sh", "-c", "head -c 3000000 /dev/zero; sleep 20"], timeout=10)


def test_not_executable(tmp_path: Path):
    program = tmp_path / "program"
    program.write_bytes(b"\x00garbage")
    program.chmod(0o755)
    with pytest.raises(CommandError, match="Exec format error"):
        commands.run([program])
