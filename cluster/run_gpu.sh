#!/usr/bin/env bash
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=4
#SBATCH --job-name=gerbil-train
#SBATCH --gpus-per-node=1
#SBATCH --mem=64G
#SBATCH --time=48:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
# Train a Gerbilizer config: run_gpu.sh DATA_DIR CONFIG [OUT]
# By sbatch, or by bash on a machine without SLURM.
set -euo pipefail
if [[ $# -lt 2 ]]; then
  echo "usage: run_gpu.sh DATA_DIR CONFIG [OUT]" >&2
  exit 2
fi
python=${GERBIL_TUNE_PYTHON:-.venv/bin/python}
command=("$python" -u -m gerbil_tune.main --data "$1" --config "$2" --save_path "${3:-.}")
[[ -n ${SLURM_JOB_ID:-} ]] || exec "${command[@]}"
folder=${GERBIL_TUNE_CLUSTER_DIR:-$(dirname "$0")}
if [[ ! -f $folder/ray.sbatch ]]; then # sbatch runs a copy of this script, elsewhere
  job=$(scontrol show job "$SLURM_JOB_ID")
  job=${job#*Command=}
  folder=${job%%/run_gpu.sh*}
fi
GERBIL_TUNE_CLUSTER_DIR=$folder exec bash "$folder/ray.sbatch" "${command[@]}"
