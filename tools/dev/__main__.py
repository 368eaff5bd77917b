"""The commands of the development environment; `make help` says what each is for."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable

from tools.dev.console import Console, StepFailed, warn
from tools.dev.engine import Engine
from tools.dev.locks import exclusive
from tools.dev.paths import Paths
from tools.dev.servers import Servers
from tools.dev.setup import Setup
from tools.dev.signals import foreground, leave_in_order
from tools.dev.suite import Check, Suite


class Commands:
    """One method a command; each gives the exit code."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._console = Console(paths.build / "logs")
        self._setup = Setup(paths, self._console, os.environ)

    def setup(self) -> int:
        """Install and build everything that needs no engine."""
        self._setup.announce(engine=False)
        self._setup.tools()
        return 0

    def run(self, argv: list[str]) -> int:
        """Run a command with the tools in PATH and an engine that is held until it ends."""
        if not argv:
            raise StepFailed("no command was given", "say what to run after --")
        return self._with_engine(lambda engine: foreground(argv, self._setup.environment(engine)))

    def demo(self) -> int:
        """Both styles of using a pool, on a server and engine of their own, with times."""

        def show(engine: Engine) -> int:
            env = self._setup.environment(engine)
            servers = Servers(self._paths, self._console, env)
            with servers.running(engine, "127.0.0.1:0") as server:
                env["SANDPOOL_ADDRESS"] = server.address
                return foreground([self._paths.python, "tools/demo/demo.py"], env, self._paths.repo)

        return self._with_engine(show)

    def serve(self) -> int:
        """A server in the foreground; Ctrl-C ends it and removes what it made."""

        def show(engine: Engine) -> int:
            servers = Servers(self._paths, self._console, self._setup.environment(engine))
            with servers.running(engine, "", shown=True) as server:
                try:
                    return server.wait()
                except KeyboardInterrupt:
                    self._console.say("")
                    return 0

        return self._with_engine(show)

    def test(self) -> int:
        """Every check and test there is."""

        def all_checks(engine: Engine) -> int:
            suite = Suite(self._paths, self._console, self._setup.environment(engine))
            return suite.run(suite.whole(self._setup.pythons))

        return self._with_engine(all_checks, tests=True)

    def pythons(self) -> int:
        """The Python client's tests on the other Pythons that it is for."""
        self.setup()
        return self._setup.pythons.test()

    def check(self) -> int:
        """The quick checks."""
        return self._without_engine(Suite.quick)

    def lint(self) -> int:
        """Format, lint and types."""
        return self._without_engine(Suite.lint)

    def _without_engine(self, choose: Callable[[Suite], list[Check]]) -> int:
        self.setup()
        suite = Suite(self._paths, self._console, self._setup.environment())
        return suite.run(choose(suite))

    def bench(self) -> int:
        """The benchmarks on a real engine."""
        argv = [str(self._paths.python), "-m", "benchmarks"]
        return self._with_engine(lambda engine: foreground(argv, self._setup.environment(engine), self._paths.repo))

    def generate(self) -> int:
        """Generate the stubs of the contracts anew."""
        self.setup()
        with exclusive(self._paths.build / "codegen.lock", self._console, "generating code"):
            argv = [str(self._paths.python), "tools/codegen/generate"]
            return foreground(argv, self._setup.environment(), self._paths.repo)

    def lock(self) -> int:
        """Write the lock files of Python packages anew."""
        self._setup.python.lock()
        return 0

    def clean(self) -> int:
        """Remove what the set-up made in this clone; caches outside of it stay."""
        for folder in self._setup.clean():
            shutil.rmtree(folder, ignore_errors=True)
        self._console.say(f"the cache stays: {self._paths.cache}")
        return 0

    def _with_engine(self, what: Callable[[Engine], int], *, tests: bool = False) -> int:
        self._setup.announce(engine=True, tests=tests)
        self._setup.tools()
        if tests:
            self._setup.test_packages()
        with self._setup.engine() as engine:
            return what(engine)


LOCAL_ONLY = ("test", "check", "bench")
"""Commands whose engine speaks to no registry but the local one: what they show must not hang on anything outside."""


def main() -> int:
    """Parse the command line and run the command."""
    parser = argparse.ArgumentParser(prog="python3 -m tools.dev", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("setup", "demo", "serve", "test", "pythons", "check", "lint", "bench", "generate", "lock", "clean"):
        commands.add_parser(name, help=getattr(Commands, name).__doc__)
    run = commands.add_parser("run", help=Commands.run.__doc__)
    run.add_argument("argv", nargs=argparse.REMAINDER, help="-- and the command")
    arguments = parser.parse_args()
    leave_in_order()
    if arguments.command in LOCAL_ONLY:
        os.environ.setdefault("SANDPOOL_OFFLINE", "1")
    chosen = Commands(Paths.from_environment())
    try:
        if arguments.command == "run":
            return chosen.run([part for at, part in enumerate(arguments.argv) if at or part != "--"])
        return int(getattr(chosen, arguments.command)())
    except StepFailed as failure:
        warn(failure.report())
        return 1
    except OSError as error:
        warn(f"error: {error}\nwhat to do: see whether the disk is full or the file is another user's")
        return 1
    except KeyboardInterrupt:
        warn("interrupted")
        return 130


if __name__ == "__main__":
    sys.exit(main())
