"""Write requirements.lock: the versions of constraints.txt with the SHA-256 of the files that pip would install here.

All but torch, whose build is the machine's own (CPU or CUDA), so that no hash is right for everyone; it is installed first:
``pip install torch==2.13.0``, then ``pip install --require-hashes --no-deps -r requirements.lock``. The hashes are those of one
Python and platform, which the first line names. Run by ``make lock`` with the interpreter of .venv.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

LEFT_OUT = ("torch==",)


def main() -> int:
    pinned = [line for line in Path("constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    wanted = [line for line in pinned if not line.startswith(LEFT_OUT)]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps", "--quiet"]
        subprocess.run([*command, "--report", str(report), *wanted], check=True)
        found = json.loads(report.read_text())["install"]
    lines = [f"# Python {platform.python_version()}, {platform.system()} {platform.machine()}; made by `make lock`"]
    for package in sorted(found, key=lambda package: package["metadata"]["name"].lower()):
        digest = package["download_info"]["archive_info"]["hashes"]["sha256"]
        name, version = package["metadata"]["name"], package["metadata"]["version"]
        lines.append(f"{name.lower().replace('_', '-').replace('.', '-')}=={version} --hash=sha256:{digest}")
    Path("requirements.lock").write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
