"""``python -m bazaar``, and what the launcher runs: the fast path first.

The launcher starts Python without its site module (-S), which costs 8 ms of every start;
the two folders it would have found are named here.
"""

from __future__ import annotations

import gc
import sys

if sys.flags.no_site:
    _source = __file__.rpartition("/bazaar/")[0]
    _venv = sys.executable.rpartition("/bin/")[0]
    _version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    sys.path += [_source, f"{_venv}/lib/{_version}/site-packages"]
# The default looks through all that was loaded again and again: 5 ms before a container starts.
gc.set_threshold(50_000)


def main() -> int:
    if sys.argv[1:] in (["--version"], ["-V"]):
        from bazaar import __version__

        try:
            print(f"bazaar {__version__}", flush=True)  # noqa: T201
        except OSError as error:
            from bazaar.cli.main import failed

            return failed(error)
        return 0
    if sys.argv[1:2] == ["trace"]:
        from bazaar.cli.tracing import fast

        code = fast(sys.argv[2:])
        if code is not None:
            return code
    if sys.argv[1:2] == ["run"]:
        from bazaar.cli.run_request import fast

        code = fast(sys.argv[2:])
        if code is not None:
            return code
    from bazaar.cli.main import main as command_line

    return command_line()


if __name__ == "__main__":
    sys.exit(main())
