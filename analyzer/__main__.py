"""`python -m analyzer` is the command `analyze`: how `produce --until` asks for a decision, whatever is on the path."""

from store.cli.start import analyze

if __name__ == "__main__":
    analyze()
