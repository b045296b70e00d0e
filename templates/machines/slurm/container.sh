#!/bin/bash
# A sweep in a container on one node. Containers seldom hold scontrol, so that this script gives the job back itself.
#   sbatch container.sh IMAGE STUDY [WORKSPACE]
# The study and the workspace are below the folder that sbatch is called in.
#SBATCH --job-name=benchkit
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=benchkit-%j.log
#SBATCH --signal=B:USR1@120

RUNTIME=${RUNTIME:-apptainer exec --bind "$PWD"}
$RUNTIME "$1" benchkit sweep "$2" --workspace "${3:-benchkit-runs}" &
sweep=$!
trap 'kill -TERM "$sweep"' TERM USR1 USR2

# A trap ends the first wait early.
wait "$sweep"
code=$?
while kill -0 "$sweep" 2>/dev/null; do
    wait "$sweep"
    code=$?
done

# 143: unfinished, and all is saved. One that was cancelled ends here as well: this asks only where it still runs.
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
job=${job:-$SLURM_JOB_ID}
if [ "$code" = 143 ] && [ "$(squeue --noheader --jobs="$job" --format=%T)" = RUNNING ]; then
    scontrol requeue "$job" && exit 0
fi
exit "$code"
