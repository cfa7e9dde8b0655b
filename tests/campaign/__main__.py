"""``python -m tests.campaign malformed|kills|faults``: not part of ``make test``."""

from __future__ import annotations

import importlib
import sys

CAMPAIGNS = {
    "malformed": "wrong inputs: each is refused with one message",
    "kills": "SIGKILL at random moments, then resumed",
    "faults": "full disks and damaged artefacts, then resumed",
}


def main(arguments: list[str]) -> int:
    """Run one campaign with the rest of the arguments; its exit status says whether all is well."""
    if not arguments or arguments[0] not in CAMPAIGNS:
        print("usage: python -m tests.campaign CAMPAIGN [OPTION ...]")
        for name, text in CAMPAIGNS.items():
            print(f"  {name:10} {text}")
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    campaign = importlib.import_module(f"tests.campaign.{arguments[0]}")
    status: int = campaign.main(arguments[1:])
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
