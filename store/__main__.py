"""`python -m store` is the command `store`."""

from store.cli.start import store

if __name__ == "__main__":
    store()
