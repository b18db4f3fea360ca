#!/usr/bin/env bash
# What srun starts once on each node of a job (see launch in stages.sh): node.sh PROCESSES PROGRAM [ARGUMENT ...]
# The processes of all nodes meet on the first one, at a port that follows from the job and step.
set -eu
first=$(scontrol show hostnames "$SLURM_STEP_NODELIST" | head -n 1)
port=$((20000 + (SLURM_JOB_ID * 16 + SLURM_STEP_ID) % 10000))
exec torchrun --nnodes "$SLURM_STEP_NUM_NODES" --nproc_per_node "$1" --rdzv_backend c10d \
  --rdzv_id "$SLURM_JOB_ID.$SLURM_STEP_ID" --rdzv_endpoint "$first:$port" "${@:2}"
