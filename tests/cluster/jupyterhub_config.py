"""The demo's configuration, and at its end the settings of one test.

They come last, as hub.extraConfig or a file in jupyterhub_config.d may: after jhub_safety.setup().
"""

import os
from pathlib import Path

c = get_config()
demo = Path(__file__).parents[2] / "tools" / "demo" / "jupyterhub_config.py"
load_subconfig(demo.name, path=str(demo.parent))

# Most tests are about homes and labs of a hub whose database is simply empty; those of the guard
# set it themselves.
c.DatabaseGuard.on_loss = "ignore"

exec(compile(Path(os.environ["JHUB_SAFETY_TEST_CONFIG"]).read_text(), "extra_config.py", "exec"))
