"""`benchmarks/soak.py` with few videos."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "soak.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or not hasattr(signal, "SIGKILL"), reason="kills by /proc")
def test_killed_again_and_again():
    options = ["--videos", "60", "--worker-kills", "4", "--kills", "2"]
    done = subprocess.run([sys.executable, str(SCRIPT), *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    # A fast machine may be done before the last of the random moments comes.
    told = re.search(r"54 good and 6 broken videos, (\d) starts, (\d) workers and (\d) runs killed", done.stdout)
    starts, workers, runs = map(int, told.groups())
    assert workers >= 1 and runs >= 1 and starts == runs + 1
