"""``python -m bazaar``: the fast path first, the command line after it."""

from __future__ import annotations

import sys


def main() -> int:
    if sys.argv[1:] in (["--version"], ["-V"]):
        from bazaar import __version__

        print(f"bazaar {__version__}")  # noqa: T201
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
