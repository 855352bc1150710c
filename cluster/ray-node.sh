#!/usr/bin/env bash
# One compute node's part of a job: Ray, with what SLURM gave this node, and on the first node the command.
# Started by ray.sbatch, once on each node:  ray-node.sh RUN_DIR COMMAND [ARGUMENT ...]
# The nodes meet in RUN_DIR: hosts and token are there from the beginning; the first node writes address,
# ready, state (running, over) and status, the command's exit code. The file stop asks the command to stop.
set -euo pipefail

NODE=${SLURMD_NODENAME:-$(uname -n)}
NODE_WAIT_S=${GERBIL_TUNE_NODE_WAIT_S:-600}
SCRIPTS=$(dirname "$0")

say() { printf '[%s] %s\n' "$NODE" "$*" >&2; }

# Ends this node's part for a reason; srun then ends the others' too.
fail() {
  say "$*"
  exit 1
}

is_running() { kill -0 "$1" 2> /dev/null; }

# Waits, without a process that SLURM's SIGTERM would end.
pause() { read -rt "$1" -u "$silence" || true; }

# Writes a file of RUN_DIR at once.
write_file() {
  printf '%s\n' "$2" > "$run_dir/.$1.new"
  mv "$run_dir/.$1.new" "$run_dir/$1"
}

# Ends the processes of a session that was begun here, and no others.
end_session() {
  pkill -TERM -s "$1" || true
  for _ in 1 2 3 4 5; do
    pgrep -s "$1" > /dev/null || break
    pause 0.2
  done
  pkill -KILL -s "$1" || true
  wait "$1" 2> /dev/null || true # else bash tells how it has ended
}

# Copies the ends of Ray's logs, which are on this node alone, to where the job's owner finds them.
keep_logs() {
  local file
  mkdir -p "$run_dir/logs-$NODE" || return 0
  for file in "$tmp"/ray-start.log "$tmp"/session_latest/logs/*; do
    [[ ! -s $file || -d $file ]] || tail -c 200000 "$file" > "$run_dir/logs-$NODE/${file##*/}" || true
  done
}

# Leaves nothing behind on this node, however it ends.
clean_up() {
  local code=$? ending
  trap '' TERM
  [[ -z $command_pid ]] || end_session "$command_pid"
  [[ -z $watcher ]] || kill "$watcher" 2> /dev/null || true
  [[ -z $ray_pid ]] || end_session "$ray_pid"
  ending=$(cat "$run_dir/status" 2> /dev/null || true)
  # 2: bad input, of which Ray knows nothing; 75: stopped on request.
  [[ $code == 0 && (-n $terminated || $ending == 0 || $ending == 2 || $ending == 75) ]] || keep_logs
  rm -rf "$tmp"
  exit "$code"
}

# Starts Ray in a session of its own, whose number is ray_pid; no port is guessed.
start_ray() {
  local options=(--block --disable-usage-stats --temp-dir="$tmp" --node-ip-address="$address")
  options+=(--node-name="$NODE" --min-worker-port=0 --max-worker-port=0 --dashboard-agent-listen-port=0)
  setsid "$ray" start "${options[@]}" "${resources[@]}" "$@" > "$tmp/ray-start.log" 2>&1 < /dev/null &
  ray_pid=$!
}

# Starts the head of the cluster, and tells the others its address.
start_head() {
  local attempt
  for attempt in 1 2 3; do
    # The one port that cannot be left to the kernel; below those which it gives away.
    start_ray --head --port=0 --include-dashboard=true --dashboard-host="$address" --dashboard-port=0 \
      --ray-client-server-port=$((10100 + (SLURM_JOB_ID + 6007 * attempt) % 20000))
    until [[ -s $tmp/ray_current_cluster ]] || ! is_running "$ray_pid"; do pause 0.2; done
    if is_running "$ray_pid"; then
      RAY_ADDRESS=$(< "$tmp/ray_current_cluster")
      export RAY_ADDRESS
      write_file address "$RAY_ADDRESS"
      return
    fi
    end_session "$ray_pid"
    [[ -z $terminated ]] || exit 0
  done
  fail "Ray's head did not start: $(tail -n 20 "$tmp/ray-start.log")"
}

# Waits until all nodes have joined, and starts who names those that are lost later.
wait_for_all() {
  local line
  "$python" "$SCRIPTS/ray_nodes.py" watch "$RAY_ADDRESS" "$run_dir/hosts" "$NODE_WAIT_S" "$tmp/ready" \
    > >(while read -r line; do say "$line"; done) 2>&1 < /dev/null &
  watcher=$!
  until [[ -e $tmp/ready ]]; do
    is_running "$ray_pid" || fail "Ray has ended: $(tail -n 20 "$tmp/ray-start.log")"
    is_running "$watcher" || fail "the cluster is not whole; GERBIL_TUNE_NODE_WAIT_S is how long to wait"
    pause 0.2
  done
  say "Ray has $nodes of $nodes nodes"
}

# Runs the command to its end, passing on the request to stop; sets status.
run_command() {
  local asked='' patience=15 lost=''
  setsid "$@" < /dev/null &
  command_pid=$!
  while is_running "$command_pid"; do
    if [[ -z $asked$terminated && -e $run_dir/stop ]]; then
      asked=1
      say "asking the command to stop"
      kill -USR1 "$command_pid" 2> /dev/null || true
    fi
    # Without Ray nothing more can be saved, and SLURM kills 30 s after its SIGTERM.
    if ! is_running "$ray_pid" && ((patience-- == 0)); then
      [[ -n $terminated ]] || say "Ray has ended on this node, and the command with it"
      lost=1
      end_session "$command_pid"
    fi
    pause 0.3
  done
  wait "$command_pid" && status=0 || status=$?
  [[ -z $lost ]] || status=1
  # Of a command that does not know the signal, which then ends it: the next attempt does all of it again.
  [[ -z $asked || $status != 138 ]] || status=75
}

# The first node's part.
lead() {
  set_environment ''
  count_resources
  start_head
  wait_for_all
  if [[ -e $run_dir/stop ]]; then
    status=75 # asked to stop before it has begun
  else
    run_command "$@"
  fi
  say "the command has ended with exit code $status"
  write_file status "$status"
  echo over > "$run_dir/state"
}

# The other nodes' part; over when the first one says so. Its loss is no failure of the step.
follow() {
  local waited=0
  until [[ -s $run_dir/address ]]; do
    ls "$run_dir" > /dev/null || true # makes NFS look again
    ((waited++ < NODE_WAIT_S)) || fail "the first node did not tell Ray's address in $NODE_WAIT_S s"
    [[ -z $terminated ]] || return 0
    pause 1
  done
  RAY_ADDRESS=$(< "$run_dir/address")
  export RAY_ADDRESS
  set_environment "${RAY_ADDRESS%:*}"
  count_resources
  start_ray --address="$RAY_ADDRESS"
  while [[ $(cat "$run_dir/state" 2> /dev/null) != over && -z $terminated ]]; do
    if ! is_running "$ray_pid"; then
      say "this node is lost: Ray has ended on it: $(tail -n 5 "$tmp/ray-start.log")"
      keep_logs
      return 0
    fi
    pause 0.5
  done
}

run_dir=$1
shift
nodes=$(wc -l < "$run_dir/hosts") || fail "this node does not see $run_dir; set GERBIL_TUNE_JOBS_DIR to a folder" \
  "that all nodes share"
[[ -r $run_dir/token ]] || fail "cannot read $run_dir/token"
ray='' python='' resources=() tmp='' ray_pid='' command_pid='' watcher='' terminated='' status=1
# shellcheck source-path=SCRIPTDIR source=node-environment.sh
source "$SCRIPTS/node-environment.sh"
exec {silence}<> <(:)
trap 'terminated=1' TERM # from SLURM, to all processes of the step, the command too
trap clean_up EXIT
find_ray "$1"
raise_limits
make_tmp
# The command's exit code goes by a file: a failing task would have the other nodes killed before they clean up.
if [[ ${SLURM_PROCID:-0} == 0 ]]; then lead "$@"; else follow; fi
