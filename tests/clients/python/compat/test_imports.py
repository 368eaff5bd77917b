"""What an import of the core loads."""

import subprocess
import sys


def test_the_core_does_not_import_the_compatibility_modules():
    code = "import sandpool, sys; print([name for name in sys.modules if name.startswith('sandpool.compat')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
