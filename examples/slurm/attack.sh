#!/bin/bash
# One run, shared by the tasks of an array job. All of them give the same command; each attacks the
# micro-batches that no other has, and the last one judges the run and writes its report.
#
#   sbatch --array=1-8 examples/slurm/attack.sh /shared/run /shared/photos --labels /shared/labels.csv \
#          --pipeline /shared/sd2 --surrogate timm:resnet50 --judge timm:convnext_tiny --report
#
# The first argument is the run folder, on a file system that all nodes share; the others are those
# of `attnshift attack`. Give the same command again to go on: after the time limit, with more
# tasks, or with fewer.
#SBATCH --job-name=attnshift
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=4
#SBATCH --mem=32G
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@60
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%A-%a.log
set -euo pipefail

run=$1
shift
# Threads and device belong to a run's identity: they are the same for all tasks. The signal above
# reaches the attack itself, which ends between two images; a requeued task goes on.
exec attnshift attack "$@" --out "$run" --device "${DEVICE:-cuda}" --threads "$SLURM_CPUS_PER_TASK" \
     --max-failed 1% --log "$run-events/${SLURM_ARRAY_TASK_ID:-1}.jsonl"
