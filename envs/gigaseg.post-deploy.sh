#!/usr/bin/env bash
# Installs the package of this checkout, at the versions of the lock, into the environment that conda made.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python -m pip install --requirement "$root/requirements.lock"
python -m pip install --no-deps "$root"
