"""What a service is started with. The command line makes it; every worker process reads it from its environment.

Keys are never part of it, so that they are in no log: each process reads them from their file or their variable.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import os
from dataclasses import dataclass
from pathlib import Path

from pddm_lab.errors import ConfigError, RunError

VARIABLE = "PDDM_LAB_SERVICE"
"""Holds the settings of a worker process, as JSON."""
KEY_VARIABLE = "PDDM_LAB_API_KEY"
SHORTEST_KEY = 16
"""Characters that a key needs, so that nobody guesses it."""


@dataclass(frozen=True)
class Settings:
    """The choices of a service."""

    run: str
    """Path of the run. Of one that was updated the update that serves is served, and those that will; see worker.py."""
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    """Processes that answer."""
    api_key_file: str = ""
    """A key a line; empty: $PDDM_LAB_API_KEY, if it is set."""
    model: str = ""
    """That made imported features, as for `embedder`."""
    protocol: str = ""
    """Gallery; empty: the catalogue, or the first there is."""
    megabytes: int = 20
    """Largest body of a request."""
    rate: int = 100
    """Requests a second of one client, over all workers, and twice as many at once; 0: any number."""
    at_once: int = 32
    """Requests that a worker works on; it refuses more."""
    timeout: int = 30
    """Seconds in which a request must arrive, and in which it must be answered."""

    def to_environment(self) -> None:
        """Hand the settings to the worker processes that this one starts."""
        os.environ[VARIABLE] = json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_environment(cls) -> Settings:
        """The settings that the parent process handed over."""
        return cls(**json.loads(os.environ[VARIABLE]))

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the service."""
        return is_loopback(self.host)

    def keys(self) -> tuple[str, ...]:
        """The keys that open the service; none where everybody on this machine may use it.

        Raises:
            ConfigError: there is no key though others can reach the service, or one that is too short.
            RunError: the file can't be read.
        """
        source, text = f"${KEY_VARIABLE}", os.environ.get(KEY_VARIABLE, "")
        if self.api_key_file:
            source = self.api_key_file
            try:
                text = Path(source).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise RunError(f"--api-key-file {source} can't be read: expected a text file, a key a line.") from error
        keys = tuple(line.strip() for line in text.splitlines() if line.strip())
        if any(len(key) < SHORTEST_KEY or not key.isascii() or not key.isprintable() for key in keys):
            raise ConfigError(
                f"{source}: expected keys of {SHORTEST_KEY} or more ASCII characters. `openssl rand -hex 24` makes one."
            )
        if not keys and self.api_key_file:
            raise ConfigError(f"{source} holds no key. `openssl rand -hex 24 > {source}` makes one.")
        if not keys and not self.is_local:
            raise ConfigError(
                f"--host {self.host} lets others reach the service, so it expects an API key: "
                f"`openssl rand -hex 24 > key` makes one for --api-key-file key."
            )
        return keys


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine, as seen from itself alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
