#!/usr/bin/env bash
#SBATCH --job-name=gerbil-train
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --gpus-per-node=1
#SBATCH --mem=64G
#SBATCH --time=48:00:00
#SBATCH --output=%x-%j.log
# Train a Gerbilizer config: run_gpu.sh DATA_DIR CONFIG [OUT]
set -eu
if [ $# -lt 2 ]; then
  echo "usage: run_gpu.sh DATA_DIR CONFIG [OUT]" >&2
  exit 2
fi
python=${GERBIL_TUNE_PYTHON:-.venv/bin/python}
exec "$python" -u -m gerbil_tune.main --data "$1" --config "$2" --save_path "${3:-.}"
