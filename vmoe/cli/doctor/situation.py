"""What checks look at: the machine, and the run that is planned on it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

from .isolated import Once
from .machine import Machine

if TYPE_CHECKING:  # all of these need torch, which may be what is broken
    from vmoe.config import RunConfig

    from .ask_devices import Devices
    from .ask_ffcv import Decoded
    from .ask_run import Prospect


@dataclass(frozen=True)
class Situation:
    """path, overrides: of a config; None for a look at the machine alone. processes: of the run, on this machine.
    timeout: seconds for whatever may hang. no_torch: why torch cannot be used, where that is known already.
    """

    machine: Machine
    path: str | None
    overrides: tuple[str, ...]
    processes: int
    timeout: float
    no_torch: str | None = None

    def start(self) -> None:
        """Let what takes seconds begin, beside each other and what comes before them."""
        if self.machine.version("ffcv") is not None:
            self.decoded.start()
        if self.config is not None:
            self.prospect.start()

    @cached_property
    def devices(self) -> Once[Devices]:
        """What torch and its devices say."""
        return Once(_ask_devices, self.timeout) if self.no_torch is None else Once.failed(self.no_torch)

    @cached_property
    def decoded(self) -> Once[Decoded]:
        """What became of a JPEG that FFCV wrote and read."""
        return Once(partial(_ask_ffcv, self.timeout), self.timeout)

    @cached_property
    def prospect(self) -> Once[Prospect]:
        """What the run's data and model are like. For a config that is valid."""
        assert self.config is not None
        return Once(partial(_ask_run, self.config, self.processes), self.timeout)

    @cached_property
    def invalid(self) -> str | None:
        """Why the config cannot be read; None for a valid one, and without any."""
        return self._read[1]

    @cached_property
    def config(self) -> RunConfig | None:
        """None where there is none, or no valid one."""
        return self._read[0]

    @cached_property
    def _read(self) -> tuple[RunConfig | None, str | None]:
        if self.path is None:
            return None, None
        if self.devices.error is not None or self.devices.value is None:
            return None, f"torch cannot be imported ({self.devices.error}), which reading a config needs"
        from vmoe.config import load_config

        try:
            return load_config(self.path, self.overrides), None
        except ValueError as error:
            return None, str(error)


def _ask_devices() -> Devices:
    from .ask_devices import ask_devices

    return ask_devices()


def _ask_ffcv(timeout: float) -> Decoded:
    from .ask_ffcv import ask_ffcv

    return ask_ffcv(timeout)


def _ask_run(config: RunConfig, processes: int) -> Prospect:
    from .ask_run import ask_run

    return ask_run(config, processes)
