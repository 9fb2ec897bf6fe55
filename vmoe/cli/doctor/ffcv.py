"""Checks of FFCV: is it there, does it decode, and if not, can it be built?"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

from .finding import Finding, ok, problem, warning
from .situation import Situation

LIBRARIES = ("opencv4", "libturbojpeg")  # as pkg-config calls what FFCV is built against
BUILD = "apt install g++ pkg-config libopencv-dev libturbojpeg0-dev, then pip install 'vmoe[ffcv]'"
WITHOUT = "or data.loader=folder"


def check_ffcv(at: Situation) -> list[Finding]:
    """Whether a JPEG that it writes to a file comes back through our loader."""
    if at.machine.version("ffcv") is None:
        return [warning("ffcv", "is not installed; data.loader=folder needs none", BUILD)]
    if sys.version_info >= (3, 12) and find_spec("setuptools") is None:
        text = "it imports distutils, which Python dropped with 3.12, and setuptools, which has it, is not installed"
        return [problem("ffcv", text, "pip install setuptools")]
    if at.devices.value is None:
        return []
    from .ask_ffcv import TOLERANCE

    decoded = at.decoded.value
    if decoded is None:
        return [problem("ffcv", f"does not work: {at.decoded.error}", f"build it again ({BUILD}), {WITHOUT}")]
    version = at.machine.version("ffcv")
    if decoded.difference > TOLERANCE:
        text = f"{version} decodes other colours than were written, {decoded.difference:.0f} of 255 away in the mean"
        return [problem("ffcv", text, f"build it again against another libjpeg-turbo, {WITHOUT}")]
    text = f"{version}; wrote and read a JPEG in {decoded.seconds:.1f} s, compilation included"
    return [ok("ffcv", text), ok("libraries", ", ".join(decoded.libraries) or "linked into it")]


def check_build_tools(at: Situation) -> list[Finding]:
    """What building FFCV takes, where it is not there yet."""
    if at.machine.version("ffcv") is not None:
        return []
    compiler, tool = at.machine.program("c++", "g++", "clang++"), at.machine.program("pkg-config")
    lacking = [name for name, there in (("a C++ compiler", compiler), ("pkg-config", tool)) if there is None]
    if tool is not None:
        lacking += [library for library in LIBRARIES if not _is_known(tool, library)]
    if lacking:
        return [warning("to build it", f"{', '.join(lacking)} not found", BUILD)]
    return [ok("to build it", f"{compiler}, {tool}, {', '.join(LIBRARIES)}")]


def _is_known(pkg_config: str, library: str) -> bool:
    done = subprocess.run([pkg_config, "--exists", library], timeout=10, check=False, capture_output=True)
    return done.returncode == 0
