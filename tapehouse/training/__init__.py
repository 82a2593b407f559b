"""Training as a process of its own: from a folder with tokens and a recipe to a folder with weights and a manifest.

Nothing here needs Dagster or the warehouse: the job folder can be copied to another machine and run there with
`python -m tapehouse.training JOBDIR OUTDIR`.
"""

import logging

# On import, by whoever does it first, bitsandbytes warns of an optional kernel package for 4-bit inference on a CPU.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
