#!/bin/bash
# Many nodes without Ray: each task of the array is a sweep of its own, and all share one ledger in PostgreSQL.
#   sbatch array.sh STUDY WORKSPACE postgresql://USER@HOST/DATABASE
# WORKSPACE lies on a disk that every node sees; the password stands in ~/.pgpass. Each trial is trained once.
#SBATCH --job-name=benchkit
#SBATCH --array=1-4
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=benchkit-%A_%a.log

# exec: Slurm's signals reach the sweep and no shell. A preempted task is queued again alone.
exec benchkit sweep "$1" --workspace "$2" --storage "$3" --requeue
