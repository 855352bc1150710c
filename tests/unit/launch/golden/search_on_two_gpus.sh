#!/usr/bin/env bash
#SBATCH --job-name=night
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=16
#SBATCH --time=2-00:00:00
#SBATCH --output=night-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:TERM@120
#SBATCH --gpus-per-node=2
#SBATCH --mem=64G
#SBATCH --partition=gpu
set -u
# bash runs a trap only between two commands: so the long one runs beside it, and bash looks every second.
/opt/lab/.venv/bin/gerbil-tune search search_spaces/quick.yaml --data '/scratch/my lab' --trials 50 &
child=$!
trap 'kill -TERM "$child" 2>/dev/null' TERM
# Waiting for it instead could lose its exit status, if it ended while the trap cut the waiting short.
while kill -0 "$child" 2>/dev/null; do sleep 1; done
wait "$child"; status=$?
# 75: stopped on request, can go on.
if [ "$status" -eq 75 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$status"
