"""`python -m producer` is the command `produce`: how sweeps start it, whatever is on the path."""

from producer.sweep.process import end_with_sweep
from store.cli.start import produce

end_with_sweep()
produce()
