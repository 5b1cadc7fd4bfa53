#!/usr/bin/env bash
# Makes a machine a node for sweeps: bash cluster/bootstrap.sh
# Installs what cluster/constraints.txt pins into ~/upop, and a driver where there is a GPU without one. Run again, it
# installs only what has changed.
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
home=$HOME/upop

if lspci 2>/dev/null | grep -qi nvidia && ! command -v nvidia-smi >/dev/null; then
  sudo apt-get update -qq
  sudo DEBIAN_FRONTEND=noninteractive apt-get install -y -qq ubuntu-drivers-common
  sudo ubuntu-drivers install
  sudo modprobe nvidia
fi

for name in python3.13 python3.12 python3.11 python3; do
  python=$(command -v "$name") && break
done
if ! "${python:?no Python is installed}" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "$python is too old; upop_ray needs Python 3.11 or newer on every node" >&2
  exit 2
fi
if ! "$python" -c 'import ensurepip' 2>/dev/null; then
  sudo apt-get update -qq
  sudo DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv
fi
[[ -x $home/bin/pip ]] || "$python" -m venv "$home"

install=("$home/bin/python" -m pip install --quiet --disable-pip-version-check -c "$project/cluster/constraints.txt")
# torch first: of this version any build will do, and its index chooses one with CUDA
"${install[@]}" "$(grep '^torch==' "$project/cluster/constraints.txt")"
"${install[@]}" "$project"

# what every ray command on this machine needs; nodes without the token cannot join
cat >"$home/environment" <<'ENVIRONMENT'
export PATH=$HOME/upop/bin:$PATH
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH=$HOME/.ray/auth_token
# a stopped job gets time to write its checkpoints; Ray's own are 3 s
export RAY_JOB_STOP_WAIT_TIME_S=60
ENVIRONMENT
