"""Attached programs count exactly, lose nothing silently, and outlive their process."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from bazaar import trace
from bazaar.bpf import pins
from bazaar.errors import StateError
from bazaar.host import identity
from bazaar.trace import show
from tests.trace.kernel import needs_root, run, value, wait

pytestmark = needs_root


def writes(count: int, size: int = 100) -> None:
    """Exactly so many write system calls of this process."""
    null = os.open("/dev/null", os.O_WRONLY)
    for _ in range(count):
        os.write(null, b"x" * size)
    os.close(null)


def mine(body: str) -> str:
    own = f"/pid == {os.getpid()} && args.count == 123/"
    return f"tracepoint:syscalls:sys_enter_write {own} {{ {body} }}"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("@ = count();", 500),
        ("@++;", 500),
        ("@ += 2;", 1000),
        ("@ = sum(args->count);", 500 * 123),
        ("@ = max(args.count);", 123),
        ("@ = min(args.count);", 123),
        ("@ = args.count;", 123),
        ("@ |= args.count;", 123),
        ("@ -= 1;", -500),
        ("$x = args.count; $x -= 3; $y = $x++ * 2; @ = $x + $y;", 121 + 240),
        ("@ = (int8)(args.count + 5);", -128),
        ("@ = (uint8)(args.count + 200);", 67),
        ("@ = -7 / 2;", -3),
        ("@ = -7 % 3;", -1),
        ("@ = -8 >> 1;", -4),
        ("@ = args.count / 0;", 0),
        ("@ = pid == tid ? 1 : 2;", 1),
        ("@ = strncmp(comm, \"zzz\", 2);", 1),
        ("if (comm != \"\") { @ = 1 } else { @ = 2 }", 1),
        ("if (args.count < 5) { @ = 1 } else if (args.count < 200) { @ = 2 } else { @ = 3 }", 2),
        ("@ = 1; return; @ = 2;", 1),
        ("@k[1] = 5; @ = has_key(@k, 1) * 10 + has_key(@k, 2);", 10),
        ("unroll (3) { @++ }", 1500),
        ("@ = nsecs > 0 && elapsed < nsecs && cpu < ncpus && rand >= 0 && uid == 0;", 1),
        ("@ = cgroup > 0 && curtask != 0;", 1),
        ("$s = probe; @ = $s == \"tracepoint:syscalls:sys_enter_write\";", 1),
    ],
)  # fmt: skip
def test_values(body: str, expected: int):
    with trace.attach(trace.compile(mine(body))) as session:
        writes(500, 123)
        session.finish()
        assert value(session.maps(), "@") == expected
        assert session.lost == 0


def test_strings_of_the_process(tmp_path: Path):
    path = tmp_path / "a-file-with-a-name"
    text = f"""
    tracepoint:syscalls:sys_enter_openat /pid == {os.getpid()}/ {{
        @[str(args.filename)] = count(); @short[str(args.filename, 4)]++; @fd = args.dfd;
    }}
    tracepoint:syscalls:sys_enter_write /pid == {os.getpid()} && args.count == 11/ {{
        @written = str(args.buf, args.count);
        printf("%s:%d\\n", str(args.buf, 5), args.count);
    }}"""
    with trace.attach(trace.compile(text)) as session:
        path.write_bytes(b"hello world")
        output = show.outputs_text(session.finish())
        maps = session.maps()
    assert value(maps, "@", str(path)[:63]) == 1
    assert value(maps, "@short", str(path)[:4])
    assert value(maps, "@written") == "hello world"
    assert value(maps, "@fd") == -100
    assert output == "hello:11\n"


def test_dynamic_and_fixed_strings_of_records():
    text = """tracepoint:sched:sched_process_exec { @[str(args.filename)]++; @f[args.filename]++; }
              tracepoint:sched:sched_process_exit { @c[args.comm] = count(); }"""
    true = shutil.which("true") or "/bin/true"
    with trace.attach(trace.compile(text)) as session:
        subprocess.run([true], check=True)
        session.finish()
        maps = session.maps()
    assert value(maps, "@", true)
    assert value(maps, "@f", true)
    assert value(maps, "@c", "true")


def test_pointers_to_pointers():
    text = "tracepoint:syscalls:sys_enter_execve { @[str(args.argv[1])] = count(); }"
    word = uuid.uuid4().hex
    with trace.attach(trace.compile(text)) as session:
        subprocess.run(["true", word], check=True)
        assert value(session.maps(), "@", word)


def test_raw_tracepoints_timers_and_wildcards():
    text = f"""
    rawtracepoint:sys_enter /pid == {os.getpid()} && arg1 == 1/ {{ @raw++; }}
    interval:ms:20 {{ @ticks++; if (@ticks > 3) {{ exit(7); }} }}
    profile:hz:200 {{ @samples = count(); }}
    tracepoint:syscalls:sys_enter_writ*, tracepoint:syscalls:sys_exit_write
      /pid == {os.getpid()}/ {{ @[probe]++; }}
    """
    compiled = trace.compile(text)
    assert compiled.probes > 5
    with trace.attach(compiled) as session:
        writes(50)
        wait(lambda: session.finished, session, [])
        session.finish()
        maps = session.maps()
        assert session.exit_code == 7
    assert value(maps, "@raw") >= 50
    assert value(maps, "@samples") > 0
    assert value(maps, "@", "tracepoint:syscalls:sys_enter_write") >= 50
    assert value(maps, "@", "tracepoint:syscalls:sys_exit_write") >= 50


def test_parameters():
    output, _ = run(
        'BEGIN { printf("%d %s %d %s|\\n", $1, str($2), $#, str($9)); @ = $1 + $8; exit(); }',
        parameters=["0x10", "word"],
    )
    assert output == "16 word 2 |\n\n\n@: 16\n"


def test_lost_events_are_counted():
    text = mine(
        'unroll (20) { printf("%s %s %s\\n", str(args.buf, 60), str(args.buf, 60), comm); }'
    )
    with trace.attach(trace.compile(text)) as session:
        writes(2000, 123)
        lines = show.outputs_text(session.finish()).count("\n")
        assert session.losses.events > 0
        assert lines + session.losses.events == 2000 * 20


def test_full_maps_are_counted():
    text = mine("@n++; @[@n] = 1; @c[@n] = count(); @h[@n] = hist(1);")
    with trace.attach(trace.compile(text)) as session:
        writes(5000, 123)
        losses = session.losses
        maps = {item.name: item for item in session.maps()}
    assert losses.events == 0
    assert losses.keys == dict.fromkeys(("@", "@c", "@h"), 5000 - 4096)
    assert len(maps["@h"].entries) == 4096


def test_statistics():
    from bazaar.bpf import programs

    with programs.statistics(), trace.attach(trace.compile(mine("@ = count();"))) as session:
        writes(100, 123)
        figures = session.figures
    assert figures.runs >= 100
    assert figures.nanoseconds > 0


@pytest.fixture
def cgroup() -> Iterator[Path]:
    root = identity.hierarchy()
    if root is None:
        pytest.skip("there is no cgroup v2 hierarchy")
    path = root / "bazaar" / f"t{os.getpid()}.{uuid.uuid4().hex[:8]}"
    path.mkdir(parents=True)
    yield path
    if path.exists():
        path.rmdir()
    # The parent stays where others use it.
    if not any(entry.is_dir() for entry in path.parent.iterdir()):
        path.parent.rmdir()


def test_containers_have_names_past_their_death(cgroup: Path, state: Path):
    folder = state / "containers" / cgroup.name
    folder.mkdir(parents=True)
    (folder / "container.json").write_text('{"name": "shop/paris/1", "engine": "shared"}')
    text = """tracepoint:syscalls:sys_enter_write /args.count == 77/ {
        @[container] = count(); printf("%s\\n", container);
    }"""
    with trace.attach(trace.compile(text)) as session:
        session.poll()
        inside = f"echo $$ > {cgroup}/cgroup.procs; head -c 77 /dev/zero"
        subprocess.run(["sh", "-c", inside], check=True, stdout=subprocess.DEVNULL)
        writes(2, 77)
        cgroup.rmdir()
        output = show.outputs_text(session.finish())
        maps = session.maps()
    assert value(maps, "@", "shop/paris/1") == 1
    assert value(maps, "@", "host") == 2
    assert sorted(output.split()) == ["host", "host", "shop/paris/1"]


def test_containers_nobody_saw_alive_are_one_entry(cgroup: Path, state: Path):
    text = "tracepoint:syscalls:sys_enter_write /args.count == 76/ { @[container] = count(); }"
    with trace.attach(trace.compile(text)) as session:
        for number in range(3):
            inner = cgroup / str(number)
            inner.mkdir()
            inside = f"echo $$ > {inner}/cgroup.procs; head -c 76 /dev/zero"
            subprocess.run(["sh", "-c", inside], check=True, stdout=subprocess.DEVNULL)
            inner.rmdir()
        maps = session.maps()
    entries = [(entry.key, entry.value) for entry in maps[0].entries]
    assert entries == [((identity.GONE,), 3)]


@pytest.fixture
def pinned(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    folder = f"{pins.root()}/t{os.getpid()}{uuid.uuid4().hex[:6]}"
    yield folder, tmp_path / "probe.json"
    pins.remove_all(folder)
    assert not os.path.exists(folder)


def test_a_restart_keeps_what_was_counted(pinned: tuple[str, Path]):
    folder, description = pinned
    text = mine("@ = count(); @h[comm] = hist(args.count); @x++;") + ' END { printf("end\\n"); }'
    with trace.attach(trace.compile(text)) as session:
        writes(10, 123)
        trace.pin(session, folder, description)
    writes(10, 123)  # nobody reads, and it still counts
    again = trace.adopt(folder, description)
    assert again is not None
    with again:
        writes(10, 123)
        maps = again.maps()
        assert value(maps, "@") == 30
        assert value(maps, "@x") == 30
        trace.remove(folder, description)
        assert show.outputs_text(again.finish()) == "end\n"
    assert trace.adopt(folder, description) is None


@pytest.mark.parametrize("half", [False, True])
def test_what_was_paused_goes_on_under_the_next(pinned: tuple[str, Path], half: bool):
    folder, description = pinned
    text = mine("@ = count();") + " interval:s:60 { @never = 1; }"
    with trace.attach(trace.compile(text)) as session:
        trace.pin(session, folder, description)
        writes(10, 123)
        if half:  # killed while the pins are made again
            os.rename(f"{folder}/links", f"{folder}/linking")
            os.unlink(f"{folder}/linking/1-0")
        else:
            trace.pause(session, folder)
            writes(10, 123)
    again = trace.adopt(folder, description)
    assert again is not None
    with again:
        writes(10, 123)
        assert value(again.maps(), "@") == 20
    assert not os.path.exists(f"{folder}/linking")
    assert os.path.exists(f"{folder}/links/1-0")


@pytest.mark.parametrize("damage", ["{", "{}", "[]", '{"text": 5}'])
def test_damaged_descriptions_are_refused(pinned: tuple[str, Path], damage: str):
    folder, description = pinned
    with trace.attach(trace.compile("BEGIN { }")) as session:
        trace.pin(session, folder, description)
    description.write_text(damage)
    with pytest.raises(StateError):
        trace.adopt(folder, description)


def test_missing_pins_are_refused(pinned: tuple[str, Path]):
    folder, description = pinned
    with trace.attach(trace.compile("BEGIN { @ = 1; }")) as session:
        trace.pin(session, folder, description)
    os.unlink(f"{folder}/maps/0")
    with pytest.raises(StateError, match="damaged"):
        trace.adopt(folder, description)
