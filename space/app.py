"""The page on a Space: `LONGVALE_MODEL` names the model."""

import os

from longvale.app.limits import Limits
from longvale.app.server import serve
from longvale.system.interruption import wait_for_end

if "LONGVALE_MODEL" not in os.environ:
    raise SystemExit("set the variable LONGVALE_MODEL in the settings of the Space to the Hub id of a model")

limits = Limits(
    size=int(float(os.environ.get("LONGVALE_MAX_SIZE_MB", "500")) * 2**20),
    length=float(os.environ.get("LONGVALE_MAX_LENGTH_S", "1200")),
)
with serve(os.environ["LONGVALE_MODEL"], host="0.0.0.0", limits=limits) as url:
    print(f"the page is at {url}")
    wait_for_end()
