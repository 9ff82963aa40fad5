#!/bin/sh
# Writes the plain unit files from their source, into DIRECTORY or here. Needs nix-instantiate and python3.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
nix-instantiate --eval --strict --json "$here/units.nix" | python3 -c '
import json, pathlib, sys
for name, text in json.load(sys.stdin).items():
    pathlib.Path(sys.argv[1], name).write_text(text)
' "${1:-$here}"
