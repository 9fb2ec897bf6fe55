"""`vmoe verify`: is a .beton file what its sidecar says?"""

from __future__ import annotations

import argparse

from vmoe.data import verify_beton


def run(options: argparse.Namespace) -> None:
    sidecar = verify_beton(options.file)
    print(f"{options.file}: {sidecar.samples:,} images of {len(sidecar.classes)} classes, as written")
