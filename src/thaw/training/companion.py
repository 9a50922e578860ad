"""`python -m thaw.training.companion DIR`: one of the further processes of a run on several devices."""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stdout
from pathlib import Path

from thaw.config.faults import UserFault
from thaw.training.process import Interrupted, interruptible
from thaw.training.ranks import end_with_the_first_process
from thaw.training.run import Pruned, joined_run
from thaw.training.train import train


def main() -> int:
    """The first process tells what the user is to know; a bug leaves its traceback here."""
    end_with_the_first_process()
    with Path(os.devnull).open("w") as nothing, redirect_stdout(nothing), interruptible():
        try:
            train(joined_run(Path(sys.argv[1]), rank=int(os.environ["LOCAL_RANK"])))
        except Pruned:
            return 0
        except UserFault:
            return 2
        except Interrupted:
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
