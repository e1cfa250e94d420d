"""The ipam actor as a process: `python -m ipam_actor`, told what to do by environment variables
(`services/runtime/config.py`).
"""

from __future__ import annotations

from services.runtime.deciding import run_deciding_actor
from services.runtime.main_loop import run_draining_actor

from .definition import IPAM


def main() -> None:
    """Decide about tenants, networks, endpoints and hosts until told to stop."""
    run_draining_actor("ipam", lambda settings, stop: run_deciding_actor(IPAM, settings, stop))


if __name__ == "__main__":
    main()
