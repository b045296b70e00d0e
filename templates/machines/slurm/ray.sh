#!/bin/bash
# One sweep on all nodes of an allocation, by a Ray cluster that lives as long as the job does:
#   sbatch ray.sh STUDY [WORKSPACE]
# STUDY and WORKSPACE need to be on the first node alone. benchkit and its extra ray are installed on all of them.
#SBATCH --job-name=benchkit
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=benchkit-%j.log

export RAY_USAGE_STATS_ENABLED=0
# Slurm kills what is left 30 seconds after its signal; Ray would wait for as long.
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=10
# Whoever wants to join the cluster needs this job's token, on every node. Its home may be another one there.
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token
# A folder and a port of the job's own: Ray's sockets lie in the one and need a short path.
folder=$(mktemp -d /tmp/bk-XXXXXX)
trap 'rm -rf "$folder"' EXIT
node=(ray start --block --num-cpus="$SLURM_CPUS_PER_TASK")

"${node[@]}" --head --port="${PORT:-0}" --temp-dir="$folder" --include-dashboard=false >"$folder/head.log" 2>&1 &
head=$!
until [ -s "$folder/ray_current_cluster" ]; do
    kill -0 "$head" 2>/dev/null || { cat "$folder/head.log"; echo "the head of the Ray cluster did not start"; exit 1; }
    sleep 1
done
address=$(cat "$folder/ray_current_cluster")

# The other nodes; the sweep begins on the first one, and takes them as they come. Older srun forgets --cpus-per-task.
others=$((SLURM_JOB_NUM_NODES - 1))
if [ "$others" -gt 0 ]; then
    srun --nodes="$others" --ntasks="$others" --exclude="$SLURMD_NODENAME" --cpus-per-task="$SLURM_CPUS_PER_TASK" \
        "${node[@]}" --address="$address" >"$folder/nodes.log" &
    nodes=$!
fi

benchkit sweep "$1" --workspace "${2:-benchkit-runs}" --cluster "$address" --requeue &
sweep=$!
trap 'kill -TERM "$sweep"' TERM USR1 USR2

# The job's result is the sweep's: 0 when everything is there, or the job is queued again. A trap ends a wait early.
wait "$sweep"
code=$?
while kill -0 "$sweep" 2>/dev/null; do
    wait "$sweep"
    code=$?
done
kill "$head" $nodes 2>/dev/null
wait
exit "$code"
