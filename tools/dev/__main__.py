"""Commands of the development environment. `make help` describes each command."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable

from tools.dev.console import Console, StepFailed, warn
from tools.dev.contract import ContractImage
from tools.dev.engine import Engine
from tools.dev.locks import exclusive
from tools.dev.paths import Paths
from tools.dev.servers import Servers
from tools.dev.setup import Setup
from tools.dev.signals import exit_on_signals, foreground
from tools.dev.suite import Check, Suite


class Commands:
    """One method for each command. It returns the exit code, and its docstring is the help text."""

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
        """Run a command with the tools in PATH and an engine, which is available until the command exits."""
        if not argv:
            raise StepFailed("there is no command to run", "specify the command after --")
        return self._with_engine(lambda engine: foreground(argv, self._setup.environment(engine)))

    def demo(self) -> int:
        """Show both ways to use a pool, with times, on a separate server."""

        def show(engine: Engine) -> int:
            env = self._setup.environment(engine)
            servers = Servers(self._paths, self._console, env)
            with servers.running(engine, "127.0.0.1:0") as server:
                env["SANDPOOL_ADDRESS"] = server.address
                return foreground([self._paths.python, "tools/demo/demo.py"], env, self._paths.repo)

        return self._with_engine(show)

    def serve(self) -> int:
        """Run a server in the foreground. Ctrl-C stops it and removes its containers and data."""

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
        """Run all checks and tests."""

        def all_checks(engine: Engine) -> int:
            suite = Suite(self._paths, self._console, self._setup.environment(engine))
            return suite.run(suite.whole(self._setup.pythons, self._setup.peers))

        return self._with_engine(all_checks, tests=True)

    def pythons(self) -> int:
        """Run the tests of the Python client on other Python versions and next to SDKs of other products."""
        self.setup()
        return max(self._setup.pythons.test(), self._setup.peers.test())

    def check(self) -> int:
        """Run the quick checks: format, lint, types and unit tests."""
        return self._without_engine(Suite.quick)

    def lint(self) -> int:
        """Check format, lint rules and types."""
        return self._without_engine(Suite.lint)

    def _without_engine(self, choose: Callable[[Suite], list[Check]]) -> int:
        self.setup()
        suite = Suite(self._paths, self._console, self._setup.environment())
        return suite.run(choose(suite))

    def bench(self) -> int:
        """Run the benchmarks on a real engine."""
        argv = [str(self._paths.python), "-m", "benchmarks"]
        return self._with_engine(lambda engine: foreground(argv, self._setup.environment(engine), self._paths.repo))

    def generate(self) -> int:
        """Generate code from the contracts, and the blocking Python client."""
        self._setup.generators()
        with exclusive(self._paths.build / "codegen.lock", self._console, "generating code"):
            argv = [str(self._paths.python), "tools/codegen/generate"]
            return foreground(argv, self._setup.environment(), self._paths.repo)

    def freeze(self, allow_breaking: bool = False) -> int:
        """Write the image of the contract with which later changes must be compatible."""
        self._setup.generators()
        image = ContractImage(self._paths, self._console, self._setup.environment())
        return image.freeze(allow_breaking=allow_breaking)

    def lock(self) -> int:
        """Update the lock files of Python packages."""
        self._setup.python.lock()
        return 0

    def clean(self) -> int:
        """Remove the files that the setup created in this clone. Caches outside of the clone remain."""
        for directory in self._setup.clean():
            shutil.rmtree(directory, ignore_errors=True)
        self._console.say(f"not removed: the cache {self._paths.cache}")
        return 0

    def _with_engine(self, command: Callable[[Engine], int], *, tests: bool = False) -> int:
        self._setup.announce(engine=True, tests=tests)
        self._setup.tools()
        if tests:
            self._setup.test_packages()
        with self._setup.engine() as engine:
            return command(engine)


LOCAL_ONLY = ("test", "check", "bench")
"""Commands whose engine uses only the local registry, so that their results do not depend on other machines."""


def main() -> int:
    """Parse the command line and run the command."""
    parser = argparse.ArgumentParser(prog="python3 -m tools.dev", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("setup", "demo", "serve", "test", "pythons", "check", "lint", "bench", "generate", "lock", "clean"):
        commands.add_parser(name, help=getattr(Commands, name).__doc__)
    freeze = commands.add_parser("freeze", help=Commands.freeze.__doc__)
    freeze.add_argument("--allow-breaking", action="store_true", help="write the image in spite of breaking changes")
    run = commands.add_parser("run", help=Commands.run.__doc__)
    run.add_argument("argv", nargs=argparse.REMAINDER, help="command to run, after --")
    arguments = parser.parse_args()
    exit_on_signals()
    if arguments.command in LOCAL_ONLY:
        os.environ.setdefault("SANDPOOL_OFFLINE", "1")
    chosen = Commands(Paths.from_environment())
    try:
        if arguments.command == "run":
            return chosen.run([part for at, part in enumerate(arguments.argv) if at or part != "--"])
        if arguments.command == "freeze":
            return chosen.freeze(arguments.allow_breaking)
        return int(getattr(chosen, arguments.command)())
    except StepFailed as failure:
        warn(failure.report())
        return 1
    except OSError as error:
        warn(f"error: {error}\nsolution: check the free disk space and the owner of the file")
        return 1
    except KeyboardInterrupt:
        warn("interrupted")
        return 130


if __name__ == "__main__":
    sys.exit(main())
