"""`python -m analyzer` is the command `analyze`: how `produce --until` asks for a decision, whatever is on the path."""

from analyzer.cli.main import main

if __name__ == "__main__":
    main(prog_name="analyze")
