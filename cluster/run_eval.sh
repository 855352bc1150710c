#!/usr/bin/env bash
#SBATCH --job-name=gerbil-eval
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=64G
#SBATCH --time=00:15:00
#SBATCH --output=%x-%j.log
# Predict a file with a trained model: run_eval.sh FILE CONFIG [OUT]
set -eu
if [ $# -lt 2 ]; then
  echo "usage: run_eval.sh FILE CONFIG [OUT]" >&2
  exit 2
fi
python=${GERBIL_TUNE_PYTHON:-.venv/bin/python}
exec "$python" -u -m gerbil_tune.main --eval --data "$1" --config "$2" ${3:+-o "$3"}
