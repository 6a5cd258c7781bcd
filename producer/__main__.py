"""`python -m producer` is the command `produce`: how sweeps start it, whatever is on the path."""

from producer.cli.main import main
from producer.sweep.process import end_with_parent

end_with_parent()
main(prog_name="produce")
