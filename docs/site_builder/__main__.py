"""Build the site: `python -m docs.site_builder [FOLDER]`, from the folder of the repository.

The pages go to FOLDER/site; the default of FOLDER is the folder of the repository.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from docs.site_builder.links import problems
from docs.site_builder.page_folder import ROOT, write_pages, write_theme

CONFIGURATION = "mkdocs.yml"


def build(target: Path) -> int:
    """Write the pages to target/build/pages and the site to target/site; return the exit status of the builder.

    Warnings, links that lead nowhere and files from the network are errors.
    """
    write_pages(target / "build" / "pages")
    write_theme(target / "build" / "theme")
    configuration = ROOT / CONFIGURATION
    if target != ROOT:  # its paths are relative to the folder that it is in
        configuration = target / CONFIGURATION
        configuration.write_bytes((ROOT / CONFIGURATION).read_bytes())
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "--config-file", str(configuration)]
    status = subprocess.run(command, cwd=target, check=False).returncode
    if status:
        return status
    lines = problems(target / "site")
    print("\n".join(lines) or f"All links lead somewhere. Open {target / 'site' / 'index.html'}")
    return 1 if lines else 0


if __name__ == "__main__":
    raise SystemExit(build(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT))
