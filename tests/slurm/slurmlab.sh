#!/usr/bin/env bash
# A throw-away SLURM cluster on one machine, in Linux namespaces; needs root.
#   slurmlab.sh start DIR [NODES]   returns when every node is idle
#   slurmlab.sh run DIR COMMAND...  runs a command on the login host
#   slurmlab.sh kill DIR NUMBER     a compute node loses its power
#   slurmlab.sh stop DIR            ends everything
# Each compute node has its own network, address, host name, process table and /dev/shm. The file system is
# shared, as home folders on NFS are. Killing the first process of a namespace ends all that is in it.
set -euo pipefail
self=$(readlink -f "$0")
net=10.77.0

# Prints slurm.conf. Each node claims four CPUs and two GPUs, whatever the machine has.
conf() { # DIR NODES
  cat << CONF
ClusterName=lab
SlurmctldHost=login($net.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket=$1/munge/munge.sock
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SlurmctldPort=16817
SlurmdPort=16818
StateSaveLocation=$1/ctld
SlurmdSpoolDir=$1/spool-%n
SlurmctldPidFile=$1/slurmctld.pid
SlurmdPidFile=$1/slurmd-%n.pid
SlurmctldLogFile=$1/slurmctld.log
SlurmdLogFile=$1/slurmd-%n.log
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0,defer
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=15
MinJobAge=300
JobRequeue=1
InactiveLimit=0
SlurmdTimeout=20
JobCompType=jobcomp/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
PropagateResourceLimits=NONE
GresTypes=gpu
CONF
  local i
  for ((i = 1; i <= $2; i++)); do
    echo "NodeName=n$i NodeAddr=$net.$((10 + i)) CPUs=4 RealMemory=6000 Gres=gpu:2 State=UNKNOWN"
  done
  echo "PartitionName=main Nodes=n[1-$2] Default=YES MaxTime=60 State=UP OverSubscribe=NO"
}

# Writes what the cluster consists of.
prepare() { # DIR NODES
  local i
  mkdir -p "$1/munge" "$1/ctld"
  chmod 711 "$1/munge"
  head -c 128 /dev/urandom > "$1/munge/key"
  chmod 600 "$1/munge/key"
  conf "$1" "$2" > "$1/slurm.conf"
  for i in 0 1; do mknod "$1/gpu$i" c 1 3; done
  printf 'AutoDetect=off\nName=gpu Flags=nvidia_gpu_env File=%s\n' "$1/gpu[0-1]" > "$1/gres.conf"
  printf '127.0.0.1 localhost\n%s login\n' "$net.1" > "$1/hosts"
  for ((i = 1; i <= $2; i++)); do printf '%s n%s\n' "$net.$((10 + i))" "$i" >> "$1/hosts"; done
}

# Waits until a command succeeds, for 30 s.
until_ok() {
  local i
  for ((i = 0; i < 300; i++)); do
    if "$@" > /dev/null 2>&1; then return 0; fi
    sleep 0.1
  done
  echo "slurmlab: in vain: $*" >&2
  return 1
}

# The first process of the login host, in whose namespaces the nodes have theirs.
world() { # DIR NODES
  local i
  mount --make-rprivate /
  mount -t proc proc /proc
  hostname login
  ip link set lo up
  ip link add br0 type bridge
  ip addr add "$net.1/24" dev br0
  ip link set br0 up
  mount --bind "$1/hosts" /etc/hosts
  munged --key-file="$1/munge/key" --socket="$1/munge/munge.sock" --pid-file="$1/munge/munged.pid" \
    --log-file="$1/munge/munged.log" --seed-file="$1/munge/seed" --force
  SLURM_CONF=$1/slurm.conf slurmctld -D -c &
  for ((i = 1; i <= $2; i++)); do
    unshare --net --mount --pid --uts --ipc --fork --kill-child --mount-proc "$self" _node "$1" "$i" &
    echo $! > "$1/node-$i.pid"
    until_ok test -e "$1/node-$i.netns" # its namespaces are there
    ip link add "v$i" type veth peer name eth0 netns "$!"
    ip link set "v$i" master br0 up
  done
  touch "$1/world.up"
  while :; do wait || true; sleep 0.5; done
}

# The first process of a compute node.
node() { # DIR NUMBER
  mount --make-rprivate /
  hostname "n$2"
  mount -t tmpfs -o mode=1777,size=2g tmpfs /dev/shm
  # As Debian's installer has it: a machine's own name stands for its loopback.
  sed "s/.* n$2\$/127.0.1.1 n$2/" "$1/hosts" > "$1/hosts-$2"
  mount --bind "$1/hosts-$2" /etc/hosts
  readlink /proc/self/ns/net > "$1/node-$2.netns"
  until_ok ip link show eth0
  ip link set lo up
  ip addr add "$net.$((10 + $2))/24" dev eth0
  ip link set eth0 up
  ip route add default via "$net.1"
  SLURM_CONF=$1/slurm.conf slurmd -D -N "n$2" &
  while :; do wait || true; sleep 0.5; done
}

# Prints the first process of the login host.
first_process() { # DIR
  local outer children
  outer=$(cat "$1/unshare.pid")
  children=$(cat "/proc/$outer/task/$outer/children")
  echo "${children%% *}"
}

# Whether that many nodes are idle.
are_idle() { # DIR NODES
  [[ -e $1/world.up && $("$self" run "$1" sinfo -h -t idle -o %D) == "$2" ]]
}

command=${1:-}
[[ $# -lt 2 ]] || dir=$(readlink -m "$2")
case $command in
  start)
    prepare "$dir" "${3:-2}"
    setsid unshare --net --mount --pid --uts --ipc --fork --kill-child "$self" _world "$dir" "${3:-2}" \
      > "$dir/world.out" 2>&1 < /dev/null &
    echo $! > "$dir/unshare.pid"
    until_ok are_idle "$dir" "${3:-2}" || { tail "$dir"/world.out "$dir"/*.log >&2; exit 1; }
    ;;
  run)
    shift 2
    SLURM_CONF=$dir/slurm.conf exec nsenter -t "$(first_process "$dir")" --net --mount --pid --uts --ipc \
      --wd="$PWD" "$@"
    ;;
  kill) "$self" run "$dir" kill -KILL "$(cat "$dir/node-$3.pid")" ;;
  stop)
    outer=$(cat "$dir/unshare.pid")
    kill -KILL "$(first_process "$dir")" "$outer" || true
    until_ok eval "! kill -0 $outer"
    ;;
  _world) world "$dir" "$3" ;;
  _node) node "$dir" "$3" ;;
  *)
    sed -n 2,8p "$0"
    exit 2
    ;;
esac
