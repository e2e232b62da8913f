"""Ask PyPI for known vulnerabilities of the versions in constraints.txt; run by ``make audit`` in a venv that has pip-audit.

Exit status 1 where there are any. Where nobody answers, or knows none of the packages, the last line begins with SKIPPED and
the status is 0: a mirror without the vulnerability service must not stop the tests, and is no audit.
"""

from __future__ import annotations

import json
import subprocess
import sys


def main() -> int:
    command = [sys.executable, "-m", "pip_audit", "-r", "constraints.txt", "--no-deps", "--disable-pip", "--format", "json"]
    done = subprocess.run([*command, "--progress-spinner", "off"], capture_output=True, text=True, check=False)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (json.JSONDecodeError, KeyError):
        sys.stdout.write(f"SKIPPED pip-audit: no answer: {(done.stderr.strip().splitlines() or ['nothing said'])[-1]}\n")
        return 0
    vulnerable = [package for package in packages if package.get("vulns")]
    for package in vulnerable:
        for found in package["vulns"]:
            sys.stdout.write(f"{package['name']} {package['version']}: {found['id']}, mended in {found['fix_versions']}\n")
    skipped = sum("skip_reason" in package for package in packages)
    verdict = "" if skipped < len(packages) else "SKIPPED "
    sys.stdout.write(
        f"{verdict}pip-audit: {len(packages) - skipped} of {len(packages)} pinned packages audited, {len(vulnerable)} with "
        f"known vulnerabilities, {skipped} unknown to the index\n"
    )
    return int(bool(vulnerable))


if __name__ == "__main__":
    sys.exit(main())
