# Print the path of every supported Python on this machine except the minor version of the one given as $1.
default=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
for minor in 3.11 3.12 3.13; do
  [ "$minor" = "$default" ] && continue
  for candidate in "$(command -v python$minor)" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$minor".*/bin/python; do
    if [ -x "$candidate" ] && "$candidate" -c 'import venv' 2>/dev/null; then echo "$candidate"; break; fi
  done
done
