"""Files that are whole or the old ones, and locks that hold though their file is removed."""

import multiprocessing
import os

import pytest

from bazaar.errors import LockedError, StateError
from bazaar.host import files


def test_content_and_mode(tmp_path):
    files.write_atomic(tmp_path / "deep" / "a", "x", mode=0o640)
    assert (tmp_path / "deep" / "a").read_text() == "x"
    assert (tmp_path / "deep" / "a").stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path / "deep") == ["a"]


def test_a_failure_leaves_the_old_content_and_says_where(tmp_path):
    (tmp_path / "a").mkdir()  # cannot be replaced by a file
    with pytest.raises(StateError, match="a: cannot be written"):
        files.write_atomic(tmp_path / "a", "x")
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("text", ["{", "", "[1,", "\0"])
def test_json_cut_short(tmp_path, text):
    (tmp_path / "a").write_text(text)
    with pytest.raises(StateError, match="unreadable state"):
        files.read_json(tmp_path / "a")
    assert files.read_json(tmp_path / "none") is None


def test_the_holder_is_named(tmp_path):
    with (
        files.lock(tmp_path / "a.lock", "up"),
        pytest.raises(LockedError, match=rf"a is being changed by process {os.getpid()} \(up\)"),
        files.lock(tmp_path / "a.lock", "down"),
    ):
        pass
    with files.lock(tmp_path / "a.lock", "up"):
        pass


def _contend(path, counter, rounds):
    for _ in range(rounds):
        try:
            with files.lock(path, "test"):
                before = counter.value
                counter.value = before + 1
                if counter.value != before + 1:
                    counter.value = -(10**6)
                path.unlink(missing_ok=True)  # as `down` does
                counter.value -= 1
        except LockedError:
            pass


def test_one_holder_at_a_time_even_when_the_file_is_removed(tmp_path):
    counter = multiprocessing.Value("i", 0, lock=False)
    workers = [
        multiprocessing.Process(target=_contend, args=(tmp_path / "a.lock", counter, 400))
        for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0, 0]
    assert counter.value == 0
