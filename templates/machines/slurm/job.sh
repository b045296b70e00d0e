#!/bin/bash
# One sweep on one node. From a login node, with benchkit on the PATH:
#   sbatch job.sh STUDY [WORKSPACE]
# It ends a minute before its time limit, or when it is preempted, with the epochs saved, and gives itself back to the queue.
#SBATCH --job-name=benchkit
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=benchkit-%j.log

# exec: Slurm's signals reach the sweep and no shell. The exit code is 0 when everything is there, or the job is queued again.
exec benchkit sweep "$1" --workspace "${2:-benchkit-runs}" --requeue
