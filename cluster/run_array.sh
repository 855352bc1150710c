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
#SBATCH --output=%x-%A_%a.log
# Train several Gerbilizer configs, one a task:  sbatch --array=0-11 run_array.sh DATA_DIR CONFIG...
# Task 0 takes the first config. OUT_DIR in the environment is what run_gpu.sh has as OUT.
set -euo pipefail
if [[ $# -lt 2 || -z ${SLURM_ARRAY_TASK_ID:-} ]]; then
  echo "usage: sbatch --array=0-11 run_array.sh DATA_DIR CONFIG..." >&2
  exit 2
fi
data=$1
shift
if ((SLURM_ARRAY_TASK_ID >= $#)); then
  echo "run_array.sh: there is no config for task $SLURM_ARRAY_TASK_ID, for $# were given; use --array=0-$(($# - 1))" >&2
  exit 2
fi
configs=("$@")
folder=${GERBIL_TUNE_CLUSTER_DIR:-$(dirname "$0")}
if [[ ! -f $folder/run_gpu.sh ]]; then # sbatch runs a copy of this script, elsewhere
  job=$(scontrol show job "$SLURM_JOB_ID")
  job=${job#*Command=}
  folder=${job%%/run_array.sh*}
fi
export GERBIL_TUNE_CLUSTER_DIR=$folder
exec bash "$folder/run_gpu.sh" "$data" "${configs[SLURM_ARRAY_TASK_ID]}" "${OUT_DIR:-.}"
