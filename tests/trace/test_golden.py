"""The same output as bpftrace: golden files made by 0.23.2, and the bpftrace of this machine."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bazaar import trace
from bazaar.trace import show
from tests.trace.kernel import needs_root, run

GOLDEN = Path(__file__).parent.parent / "golden" / "trace"
PROGRAMS = sorted(path.stem for path in GOLDEN.glob("*.bt"))
# What 0.17 does not know (a second argument of hist(), print(@m[k])), or says otherwise of empty
# maps.
NEWER = {"fine_histograms", "prints", "never", "cleared", "zeroed", "emptied"}

pytestmark = needs_root


def test_there_are_golden_files():
    assert len(PROGRAMS) > 20


@pytest.mark.parametrize("name", PROGRAMS)
def test_text(name: str):
    output, _ = run((GOLDEN / f"{name}.bt").read_text())
    assert output == (GOLDEN / f"{name}.txt").read_text()


@pytest.mark.parametrize("name", PROGRAMS)
def test_json(name: str):
    with trace.attach(trace.compile((GOLDEN / f"{name}.bt").read_text())) as session:
        lines = show.outputs_json(session.poll() + session.finish()) + show.json(session.maps())
    expected = (GOLDEN / f"{name}.json").read_text().split("\n", 1)
    assert expected[0] == '{"type": "attached_probes", "data": {"probes": 1}}' or name in (
        "histograms",
        "end",
    )
    assert lines == expected[1]


@pytest.mark.skipif(not shutil.which("bpftrace"), reason="bpftrace is not installed")
@pytest.mark.parametrize("name", [name for name in PROGRAMS if name not in NEWER])
def test_like_the_installed_bpftrace(name: str):
    text = (GOLDEN / f"{name}.bt").read_text()
    theirs = subprocess.run(
        ["bpftrace", "-e", text], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    theirs = re.sub(r"^Attaching \d+ probes?\.\.\.\n", "", theirs)
    output, _ = run(text)
    # 0.17 puts a space behind the colon of a histogram.
    assert output == re.sub(r"^(@.*:) $", r"\1", theirs, flags=re.MULTILINE)


LOAD = ["dd", "if=/dev/zero", "of=/dev/null", "bs=700", "count=300"]
WRITES = """
tracepoint:syscalls:sys_enter_write /comm == "dd"/ {
    @sizes = hist(args->count); @linear = lhist(args->count, 0, 1000, 100);
    @calls[comm] = count(); @bytes = sum(args->count); @most = max(args->count);
    @least[probe] = min(args->fd); @mean = avg(args->count < 700 ? 700 : args->count);
}
"""


@pytest.mark.skipif(not shutil.which("bpftrace"), reason="bpftrace is not installed")
def test_the_same_of_the_same_load(tmp_path: Path):
    """Both watch the same dd; filtered by its name, which nothing else here has."""
    name = f"t{tmp_path.name[-8:]}"
    program = tmp_path / name
    shutil.copy(shutil.which("dd") or "dd", program)
    text = WRITES.replace('"dd"', f'"{name}"')
    command = " ".join([str(program), *LOAD[1:], "status=none"])
    theirs = subprocess.run(
        ["bpftrace", "-e", text, "-c", command],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    with trace.attach(trace.compile(text)) as session:
        subprocess.run(command.split(), check=True, timeout=60)
        output = show.outputs_text(session.finish()) + "\n\n" + show.text(session.maps())
        assert session.lost == 0
    theirs = re.sub(r"^Attaching \d+ probes?\.\.\.\n", "", theirs)
    assert "300 |@@@" in output
    assert output == re.sub(r"^(@.*:) $", r"\1", theirs, flags=re.MULTILINE)
