"""`bazaar trace` as people call it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="tracing needs to be root")
COMMAND = [sys.executable, "-I", "-m", "bazaar", "trace"]


def call(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False, input=text
    )


def test_results_on_stdout_all_else_on_stderr():
    done = call("-e", 'BEGIN { printf("hi\\n"); @x = 1; exit(); }')
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        "hi\n\n\n@x: 1\n",
        "Attaching 1 probe...\n",
    )


def test_exit_code():
    assert call("-e", "BEGIN { exit(3); }").returncode == 3
    assert call("--execute", "BEGIN { exit(4); }").returncode == 4


def test_json_is_an_object_a_line():
    done = call("-o", "json", "-e", 'BEGIN { printf("hi\\n"); @x["a"] = count(); exit(); }')
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["type"] for line in lines] == ["attached_probes", "printf", "map"]
    assert lines[0]["data"] == {"probes": 1}
    assert lines[2]["data"] == {"@x": {"a": 1}}
    assert done.stderr == ""


def test_files_parameters_and_stdin(tmp_path: Path):
    program = tmp_path / "a.bt"
    program.write_text(
        '#!/usr/bin/env bazaar\n// a comment\nBEGIN { printf("%d %s\\n", $1, str($2)); exit(); }'
    )
    assert call(str(program), "5", "six").stdout == "5 six\n\n\n"
    assert call("-", text="BEGIN { exit(); }").stdout == "\n\n"
    assert "No such file" in call(str(tmp_path / "none.bt")).stderr


def test_errors_point_into_the_program(tmp_path: Path):
    done = call("-e", "tracepoint:syscalls:sys_enter_write { @ = args.cuont; }")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(
        "1:48  unknown field 'cuont' of sys_enter_write. It has: fd, buf, count\n"
    )
    assert "Traceback" not in done.stderr
    missing = call()
    assert missing.returncode == 2
    assert "a program is missing" in missing.stderr


def test_a_command_is_traced_until_it_ends():
    done = call(
        "-e",
        "tracepoint:syscalls:sys_enter_write /pid == cpid/ { @ = hist(args.count); }",
        "-c",
        "dd if=/dev/zero of=/dev/null bs=600 count=250 status=none",
    )
    assert done.returncode == 0
    assert "[512, 1K)            250 |@@@@" in done.stdout


def test_a_command_that_is_not_there():
    done = call("-e", "BEGIN { @ = cpid > 0; }", "-c", "/no/such/program")
    assert "/no/such/program: not found" in done.stderr
    assert done.returncode == 127


def test_one_process_only():
    other = subprocess.Popen(["sh", "-c", "while :; do echo > /dev/null; done"])
    try:
        done = call(
            "-p", str(other.pid), "--duration", "0.5",
            "-e", "tracepoint:syscalls:sys_enter_write { @[pid] = count(); }",
        )  # fmt: skip
    finally:
        other.kill()
        other.wait()
    assert [line.split(":")[0] for line in done.stdout.split("\n") if line] == [f"@[{other.pid}]"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_print_the_maps(number: signal.Signals):
    child = subprocess.Popen(
        [*COMMAND, "-e", "interval:ms:10 { @x++; } END { printf(\"end\\n\"); }"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stderr is not None
    assert child.stderr.readline() == "Attaching 2 probes...\n"
    time.sleep(0.2)
    child.send_signal(number)
    output, _ = child.communicate(timeout=20)
    assert child.returncode == 0
    assert output.startswith("end\n\n\n@x: ")


def test_losses_are_told():
    probe = "tracepoint:syscalls:sys_enter_write /args.count == 997/"
    text = probe + ' { printf("%s\\n", str(args.buf, 900)); }'
    child = subprocess.Popen(
        [*COMMAND, "-e", text], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stderr is not None
    assert child.stderr.readline() == "Attaching 1 probe...\n"
    child.send_signal(signal.SIGSTOP)  # nobody reads while 5 MB go into a buffer of 1
    writer = os.open("/dev/null", os.O_WRONLY)
    for _ in range(5000):
        os.write(writer, b"x" * 997)
    os.close(writer)
    child.send_signal(signal.SIGINT)
    child.send_signal(signal.SIGCONT)
    output, errors = child.communicate(timeout=30)
    lost = int(errors.split("Lost ")[1].split()[0])
    assert lost > 1000
    assert output.count("x" * 900) == 5000 - lost


def test_a_reader_that_leaves():
    text = 'interval:ms:1 { printf("line\\n"); }'
    done = subprocess.run(
        ["sh", "-c", f"{' '.join(COMMAND)} -e '{text}' | head -n 2"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout == "line\nline\n"
    assert "Traceback" not in done.stderr


def test_listing():
    lines = call("-l", "tracepoint:sched:sched_process_e*").stdout.splitlines()
    assert "tracepoint:sched:sched_process_exec" in lines
    assert "tracepoint:sched:sched_process_exit" in lines


def test_listing_as_json():
    listed = json.loads(call("-l", "tracepoint:sched:sched_process_ex*", "-o", "json").stdout)
    assert {
        "probe": "tracepoint:sched:sched_process_exec",
        "category": "sched",
        "name": "sched_process_exec",
    } in listed


def test_listing_what_there_is_not():
    for more in ((), ("-o", "json")):
        done = call("-l", "tracepoint:none:*", *more)
        assert done.returncode == 1 and done.stdout == ""
        assert "no tracepoint of this kernel matches 'tracepoint:none:*'" in done.stderr


def test_the_plain_form_loads_little():
    code = (
        "import sys; sys.argv[1:] = ['trace', '-e', 'BEGIN { exit(); }']\n"
        "from bazaar.__main__ import main\nassert main() == 0\n"
        "heavy = {'click', 'pydantic', 'asyncio', 'rich', 'yaml', 'difflib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


def test_a_container_nobody_runs(state: Path):
    done = call("--container", "nobody-there", "-e", "BEGIN { exit(); }")
    assert done.returncode == 2
    assert "no container 'nobody-there' runs here" in done.stderr
    assert done.stdout == ""


def test_of_a_container_with_its_own_kernel_is_said_what_is_seen(state: Path):
    from bazaar.host import cgroups, paths

    name = f"t{os.getpid()}-{os.urandom(3).hex()}"
    folder = paths.containers() / name
    folder.mkdir(parents=True)
    (folder / "container.json").write_text(json.dumps({"name": name, "engine": "gvisor"}))
    cgroups.create(name, hierarchies=cgroups.writable())
    try:
        done = call("--container", name, "-e", "BEGIN { exit(); }")
    finally:
        cgroups.remove(name)
    assert done.returncode == 0
    assert done.stderr.startswith(f"{name}: a kernel of its own (gvisor). Seen are")
