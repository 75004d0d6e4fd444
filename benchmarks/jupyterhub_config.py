"""The demo's configuration, and what a benchmark adds to it."""

import os
from pathlib import Path

c = get_config()
demo = Path(__file__).parents[1] / "tools" / "demo" / "jupyterhub_config.py"
load_subconfig(demo.name, path=str(demo.parent))

extra = Path(os.environ["JHUB_SAFETY_BENCH_CONFIG"]).read_text()
exec(compile(extra, "extra_config.py", "exec"))  # noqa: S102 - the benchmark wrote it
