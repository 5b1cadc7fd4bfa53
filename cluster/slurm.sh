#!/usr/bin/env bash
# A sweep on Slurm: sbatch cluster/slurm.sh EXPERIMENT.yaml [setting=value ...]
# Starts Ray on all nodes of the job, then runs the sweep. Before the time limit and at a preemption Slurm sends TERM: the
# sweep writes its checkpoints, and the job is queued again, to go on from them. Folders of the experiment, its store and
# UPOP_VENV (default: .venv where sbatch was called) have to be on a file system of all nodes.
#SBATCH --job-name=upop
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@180
set -euo pipefail

if [[ $# -lt 1 ]]; then
  echo "usage: sbatch cluster/slurm.sh EXPERIMENT.yaml [setting=value ...]" >&2
  exit 2
fi
# shellcheck source=/dev/null
source "${UPOP_VENV:-$SLURM_SUBMIT_DIR/.venv}/bin/activate"

# a token of this job's own, in a file that only its owner reads; no command line holds it
private=$HOME/.upop_ray/slurm-$SLURM_JOB_ID
(umask 077 && mkdir -p "$private" && python -c 'import secrets; print(secrets.token_hex(32), end="")' >"$private/token")
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$private/token OMP_WAIT_POLICY=PASSIVE

told_to_leave=false
sweep=
trap 'told_to_leave=true; [[ -z $sweep ]] || kill -TERM "$sweep" 2>/dev/null || true' TERM
# shellcheck disable=SC2046 # numbers of processes, one word each
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$private"' EXIT

hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${hosts%%$'\n'*}
found=$(getent ahostsv4 "$head")
address=${found%% *}
# another port for each job, because jobs may share a node
port=$((20000 + SLURM_JOB_ID % 10000))
export RAY_ADDRESS=$address:$port
# the number of tasks too: what srun inherits is that of the whole job
step=(srun --overlap --ntasks-per-node=1 --kill-on-bad-exit=0)
node=(ray start --block "--num-cpus=$SLURM_CPUS_PER_TASK" "--num-gpus=${SLURM_GPUS_ON_NODE:-0}")
"${step[@]}" --nodes=1 --ntasks=1 --nodelist="$head" "${node[@]}" --head "--node-ip-address=$address" "--port=$port" \
  --dashboard-host=127.0.0.1 "--temp-dir=/tmp/upop-$SLURM_JOB_ID" --disable-usage-stats &
until ray status >/dev/null 2>&1; do
  if ! jobs -r | grep -q . || [[ $SECONDS -gt 300 ]]; then
    echo "Ray did not start on $head; see above" >&2
    exit 1
  fi
  sleep 1
done
if [[ $SLURM_JOB_NUM_NODES -gt 1 ]]; then
  workers=$((SLURM_JOB_NUM_NODES - 1))
  "${step[@]}" --nodes="$workers" --ntasks="$workers" --exclude="$head" "${node[@]}" "--address=$RAY_ADDRESS" &
fi
# a sweep asks at once whether its replicas have room
until present=$(ray status | grep -cE '^ +1 node_'); [[ $present -ge $SLURM_JOB_NUM_NODES ]]; do
  if [[ $SECONDS -gt 300 ]]; then
    echo "only $present of $SLURM_JOB_NUM_NODES nodes have joined; going on with them" >&2
    break
  fi
  sleep 1
done

python -m upop_ray.sweep "$@" &
sweep=$!
code=0
wait "$sweep" || code=$?
if $told_to_leave; then
  # the signal has ended that wait, and not yet the sweep
  wait "$sweep" && code=0 || code=$?
  [[ $code -eq 0 ]] || scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
