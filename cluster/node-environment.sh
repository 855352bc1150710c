# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # ray-node.sh uses what is set here, and the other way round
# What ray-node.sh knows of its node: programs, limits, folders, addresses, resources; sourced by it.

readonly LONGEST_TMP=43 # a socket's path has at most 107 bytes, and Ray's names take the others

# Finds ray and python of the command's environment: beside it, else on PATH.
find_ray() {
  local program folder
  program=$(command -v "$1") || fail "the command '$1' is not on this node; is its folder shared?"
  folder=$(dirname "$program")
  [[ -x $folder/ray ]] || folder=$(dirname "$(command -v ray || true)")
  [[ -x $folder/ray ]] || fail "there is no ray beside '$program' or on PATH; activate the environment in site.env"
  ray=$folder/ray
  python=$folder/python
  [[ -x $python ]] || python=python3
}

# Raises soft limits: SLURM carries those of the login node, and Ray needs many files and threads.
raise_limits() {
  ulimit -c 0
  ulimit -Sn "$(ulimit -Hn)" 2> /dev/null || true
  ulimit -Su "$(ulimit -Hu)" 2> /dev/null || true
}

# Makes a folder of this job alone for Ray's files; sets tmp.
make_tmp() {
  local root=${GERBIL_TUNE_TMP:-/tmp}
  mkdir -p "$root" || true # mktemp says what is wrong
  tmp=$(mktemp -d "$root/gt-XXXXXXXX") ||
    fail "cannot make a folder in $root; set GERBIL_TUNE_TMP to a short path on the node's own disk"
  ((${#tmp} <= LONGEST_TMP)) || fail "$root is too long a path for Ray's sockets; set GERBIL_TUNE_TMP to one" \
    "of at most $((LONGEST_TMP - 12)) characters"
}

# Sets the environment of Ray and the command: token, address, interfaces. $1: the first node's address.
set_environment() {
  local found
  export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$run_dir/token RAY_USAGE_STATS_ENABLED=0
  export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0 # 30 s would take all that SLURM leaves until its KILL
  # A machine that is gone is noticed in 15 to 20 s.
  export RAY_health_check_period_ms=${RAY_health_check_period_ms:-2000}
  export RAY_health_check_timeout_ms=${RAY_health_check_timeout_ms:-4000}
  export RAY_health_check_failure_threshold=${RAY_health_check_failure_threshold:-3}
  if ((nodes == 1)); then
    export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 # Ray's name for: listen on the loopback only
    address=127.0.0.1 interface=lo
  else
    found=$("$python" "$SCRIPTS/ray_nodes.py" address "${GERBIL_TUNE_INTERFACE:-}" "${1:-}") ||
      fail "no address for Ray on this node"
    address=${found% *} interface=${found##* }
  fi
  export GLOO_SOCKET_IFNAME=${GLOO_SOCKET_IFNAME:-$interface} NCCL_SOCKET_IFNAME=${NCCL_SOCKET_IFNAME:-$interface}
  export NO_PROXY=${NO_PROXY:+$NO_PROXY,}localhost,127.0.0.1,$address${1:+,$1}
  export no_proxy=$NO_PROXY PYTHONUNBUFFERED=1
}

# Counts what SLURM has given this node, as options of ray start; sets resources.
count_resources() {
  local cpus=${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}} gpus memory_mb store_mb node_mb shm_mb
  local devices=${CUDA_VISIBLE_DEVICES:-${ROCR_VISIBLE_DEVICES:-}}
  gpus=$(awk -F, '{print NF}' <<< "$devices")
  [[ -n $devices ]] || gpus=${SLURM_GPUS_ON_NODE:-0}
  node_mb=$(awk '/^MemTotal/ {print int($2 / 1024)}' /proc/meminfo)
  memory_mb=${SLURM_MEM_PER_NODE:-$((${SLURM_MEM_PER_CPU:-0} * cpus))}
  ((memory_mb > 0 && memory_mb < node_mb)) || memory_mb=$node_mb
  # Ray looks at the whole node's memory, and would kill trials for what other jobs take.
  ((memory_mb == node_mb)) || export RAY_memory_monitor_refresh_ms=${RAY_memory_monitor_refresh_ms:-0}
  # Little passes through the object store, which counts as the job's memory.
  shm_mb=$(df -Pm /dev/shm | awk 'NR == 2 {print int($4 / 2)}')
  store_mb=$((memory_mb / 10 < 1024 ? memory_mb / 10 : 1024))
  ((store_mb <= shm_mb)) || store_mb=$shm_mb
  ((store_mb >= 80)) || store_mb=80
  resources=(--num-cpus="$cpus" --num-gpus="$gpus" --memory="$(((memory_mb - store_mb) * 1000000))"
    --object-store-memory="$((store_mb * 1000000))")
  say "$cpus CPUs, $gpus GPUs and $memory_mb MB at $address ($interface)"
}
