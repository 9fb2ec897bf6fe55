"""All hostile inputs. As a program, runs each and prints the table of docs/hostile.md:

python tests/hostile/hostile_table.py > docs/hostile.md

What a fuzz run counted stands in docs/hostile_fuzz.json and is printed behind it.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
for part in ("cli", "report", "."):
    sys.path.append(str(ROOT / "tests" / part))

from hostile_case import Hostile  # noqa: E402
from hostile_checkpoints import CHECKPOINTS  # noqa: E402
from hostile_configs import CONFIGS  # noqa: E402
from hostile_data import BETONS, FOLDERS, TOKENS  # noqa: E402
from hostile_reports import REAL, REPORTS  # noqa: E402
from hostile_runner import MEMORY, Ran, run_case, sketched, wrong_with  # noqa: E402
from hostile_world import make_good_world  # noqa: E402

KINDS = {
    "Checkpoints": CHECKPOINTS,
    "Configs and overrides": CONFIGS,
    "Image folders": FOLDERS,
    ".beton files and their sidecars": BETONS,
    "Token files and texts": TOKENS,
    "Run folders": REPORTS,
    "Real labels": REAL,
}
ALL = [case for cases in KINDS.values() for case in cases]
FUZZ = ROOT / "docs/hostile_fuzz.json"
LONGEST = 260  # characters of a message in the table
HEADER = f"""# Hostile and broken input, and what comes of it

Nobody should lose work, time or a machine by a file that somebody else made, or that a disk or a copy has damaged.
Every input below is met by a command that may take {MEMORY // 2**30} GiB of address space above what the process has at
its start, has no rights to read what its user may not, and reads nothing on standard input. Those with a figure under
MiB ran in a process of its own, which took so much more memory at most; seconds are of a machine with other work to
do. Status 2 is an error in a clear line; 0 is a right result, or a safe page that says what it leaves out; 1 is what
`vmoe doctor` finds. No code from an input was run, nothing was left under a final name but what is listed, no temporary
file, and no control character reached the terminal.

Made by `python tests/hostile/hostile_table.py > docs/hostile.md`; the tests run the same table. {{count}} inputs.
"""


def row(case: Hostile, ran: Ran) -> str:
    told = ran.err if ran.status == 2 else ran.out
    told = told[max(told.find(f"vmoe {case.command[0]}:"), 0) :]  # what torch warns of comes before
    message = " ".join(told.replace(str(Path.cwd()), ".").split())
    message = message if len(message) <= LONGEST else f"{message[:LONGEST]} …"
    peak = "" if ran.peak is None else f"{ran.peak:,.0f}"
    command = " ".join(["vmoe", *case.command])
    command = command if len(command) <= 120 else f"{command[:117]}..."
    left = ", ".join(ran.left) or "nothing"
    left = left if len(left) <= 100 else f"{left[:97]}..."
    cells = [case.what, f"`{command}`", str(ran.status), message, f"{ran.seconds:.1f}", peak, left]
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(text: str) -> str:
    shown = "".join(one if one.isprintable() else f"⟨U+{ord(one):04X}⟩" for one in text)
    return shown.replace("|", "\\|").replace("<", "&lt;")


def print_table() -> int:
    """Every case; returns how many went wrong, which are told on standard error."""
    print(HEADER.format(count=len(ALL)))
    wrong = 0
    with tempfile.TemporaryDirectory() as world:
        os.chdir(world)
        make_good_world(Path(world))
        for kind, cases in KINDS.items():
            print(f"\n## {kind}\n")
            print("| input | command | status | message | seconds | MiB | left |\n|---|---|---|---|---|---|---|")
            for case in cases:
                with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                    os.chdir(folder)
                    Path("good").symlink_to(world)
                    with sketched():
                        ran = run_case(case, Path(folder))
                    if problems := wrong_with(case, ran):
                        wrong += 1
                        print(f"{case.what}: {'; '.join(problems)}", file=sys.stderr)
                    print(row(case, ran), flush=True)
                    os.chdir(world)
                    remove_all(folder)
        os.chdir(ROOT)
    if FUZZ.exists():
        print(fuzz_section())
    return wrong


def remove_all(folder: str) -> None:
    """Everything in it, however deep, and whatever may not be read."""
    os.system(f"chmod -R u+rwX '{folder}' 2>/dev/null; rm -rf '{folder}'/*")


def fuzz_section() -> str:
    """What the long fuzz run counted."""
    found = json.loads(FUZZ.read_text(encoding="utf-8"))
    rows = "".join(
        f"| {name} | {one['examples']:,} | {one['accepted']:,} | {one['failures']} |\n"
        for name, one in found["targets"].items()
    )
    return f"""
## Fuzzing

`make fuzz` mutates small good files, byte by byte and by their structure, and reads them: a reader gives a value or
raises one of the errors that the command line reports, within {found["deadline"]} seconds. One run of
{found["seconds"]:,} seconds on {found["machine"]}:

| reader | examples | of these read as a value | failures |
|---|---|---|---|
{rows}
{found["note"]}
"""


if __name__ == "__main__":
    sys.exit(print_table() > 0)
