#!/usr/bin/env bash
#SBATCH --job-name=gerbil-tune
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --output=gerbil-tune-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:TERM@120
set -u
# bash runs a trap only between two commands: so the long one runs beside it, and bash looks every second.
/opt/lab/.venv/bin/gerbil-tune search search_spaces/quick.yaml --data data &
child=$!
trap 'kill -TERM "$child" 2>/dev/null' TERM
# Waiting for it instead could lose its exit status, if it ended while the trap cut the waiting short.
while kill -0 "$child" 2>/dev/null; do sleep 1; done
wait "$child"; status=$?
# 75: stopped on request, can go on.
if [ "$status" -eq 75 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$status"
