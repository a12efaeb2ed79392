"""Where ``voxplane`` begins: Ctrl-C while its modules are read, which takes up to half a second, ends it as any later one does."""

import sys


def main() -> None:
    try:
        from app.cli.main import main as commands

        commands()
    except KeyboardInterrupt:
        sys.exit(130)
