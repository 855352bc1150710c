#!/usr/bin/env bash
# One MLflow server for a lab, with PostgreSQL and a folder of artifacts:  mlflow-server.sh [--check | --upgrade]
# Its settings are in the file that GERBIL_TUNE_MLFLOW_ENV names, else ~/.config/gerbil_tune/mlflow-server.env;
# mlflow-server.env.example shows them. They go on by the environment alone: all users of a machine can see
# command lines, and the settings hold a password.
#   --check    look at settings, folder and database, and say what would be started
#   --upgrade  bring the database's tables to the installed version of MLflow; back it up before
set -euo pipefail
umask 077

readonly PROGRAM=mlflow-server.sh
readonly SETTINGS=(MLFLOW_BACKEND_STORE_URI MLFLOW_ARTIFACTS_DESTINATION MLFLOW_HOST MLFLOW_PORT MLFLOW_WORKERS
  MLFLOW_SERVER_ALLOWED_HOSTS MLFLOW_SERVER_CORS_ALLOWED_ORIGINS PGPASSFILE)

# Bad settings; they are not tried again.
fail() {
  printf '%s: %s\n' "$PROGRAM" "$*" >&2
  exit 2
}

# Nobody but its owner may read the file.
check_private() {
  local mode
  [[ -f $file && -r $file ]] || fail "cannot read the settings $file; copy mlflow-server.env.example there, or name" \
    "another file in GERBIL_TUNE_MLFLOW_ENV"
  mode=$(stat -L -c %a -- "$file")
  (((8#$mode & 8#077) == 0)) || fail "$file can be read by others (mode $mode), and holds a password;" \
    "run: chmod 600 $(printf %q "$file")"
}

# Takes NAME=VALUE lines as they are: in a shell's hands a password would lose its special characters.
# A line that is wrong is not shown, for it may hold the password.
read_settings() {
  local line name value number=0
  while IFS= read -r line || [[ -n $line ]]; do
    number=$((number + 1))
    [[ ! $line =~ ^[[:space:]]*(#|$) ]] || continue
    [[ $line =~ ^[[:space:]]*([A-Z_]+)=(.*[^[:space:]])?[[:space:]]*$ ]] ||
      fail "$file, line $number, is not of the form NAME=VALUE"
    name=${BASH_REMATCH[1]} value=${BASH_REMATCH[2]}
    [[ " ${SETTINGS[*]} " == *" $name "* ]] ||
      fail "$file, line $number: there is no setting $name; there are: ${SETTINGS[*]}"
    [[ ! $value =~ ^(\".*\"|\'.*\')$ ]] || value=${value:1:-1}
    export "$name=$value"
  done < "$file"
}

# A whole number between two others; $1 is the setting's name.
check_number() {
  if [[ ! ${!1} =~ ^[0-9]{1,5}$ ]] || ((10#${!1} < $2 || 10#${!1} > $3)); then
    fail "$file: $1 is '${!1}', but must be a whole number from $2 to $3"
  fi
}

check_settings() {
  [[ ${MLFLOW_BACKEND_STORE_URI:-} =~ ^postgresql(\+psycopg2)?://.+/.+ ]] ||
    fail "$file: MLFLOW_BACKEND_STORE_URI must be of the form postgresql://USER:PASSWORD@HOST/DATABASE"
  # Without a driver's name SQLAlchemy takes another one from version 2.1 on.
  export MLFLOW_BACKEND_STORE_URI=postgresql+psycopg2:${MLFLOW_BACKEND_STORE_URI#*:}
  [[ ${MLFLOW_ARTIFACTS_DESTINATION:-} == /* ]] ||
    fail "$file: MLFLOW_ARTIFACTS_DESTINATION is '${MLFLOW_ARTIFACTS_DESTINATION:-}', but must be a folder's full path"
  export MLFLOW_HOST=${MLFLOW_HOST:-127.0.0.1} MLFLOW_PORT=${MLFLOW_PORT:-5000} MLFLOW_WORKERS=${MLFLOW_WORKERS:-2}
  check_number MLFLOW_PORT 1 65535
  check_number MLFLOW_WORKERS 1 64
  # MLflow by itself answers to all private addresses too, and to no name.
  case $MLFLOW_HOST in
    localhost | 127.*) : "${MLFLOW_SERVER_ALLOWED_HOSTS:=localhost,localhost:*,127.0.0.1,127.0.0.1:*}" ;;
  esac
  [[ -n ${MLFLOW_SERVER_ALLOWED_HOSTS:-} ]] || fail "$file: MLFLOW_HOST is $MLFLOW_HOST, so others reach the server;" \
    "list by what names in MLFLOW_SERVER_ALLOWED_HOSTS, for example mlflow.example.org:$MLFLOW_PORT"
  export MLFLOW_SERVER_ALLOWED_HOSTS
}

make_folder() {
  mkdir -p -- "$MLFLOW_ARTIFACTS_DESTINATION" || true # what it says comes before the sentence
  [[ -d $MLFLOW_ARTIFACTS_DESTINATION && -w $MLFLOW_ARTIFACTS_DESTINATION ]] ||
    fail "$file: cannot write into MLFLOW_ARTIFACTS_DESTINATION, $MLFLOW_ARTIFACTS_DESTINATION"
}

# The environment of the checkout that this script is in, else that of the mlflow on PATH.
find_python() {
  local mlflow
  # -P: Python finds its packages by this path, and the script may have been reached by a link.
  mlflow=$(cd -P "$(dirname "$0")/.." && pwd)/.venv/bin/mlflow
  [[ -x $mlflow ]] || mlflow=$(command -v mlflow) || true
  python=$(dirname "$mlflow")/python
  [[ -x $mlflow && -x $python ]] ||
    fail "there is no mlflow on PATH; put the bin folder of gerbil_tune's environment there"
}

# Connects once, so that what is wrong is told in a sentence; MLflow would try for minutes.
check_database() {
  "$python" - << 'PYTHON'
import os
import sys

try:
    import psycopg2  # noqa: F401
    import sqlalchemy
except ImportError as error:
    sys.exit(
        f"mlflow-server.sh: {error} in {sys.executable}; install it there: pip install 'gerbil_tune[server]'"
    )
try:
    url = sqlalchemy.make_url(os.environ["MLFLOW_BACKEND_STORE_URI"])
    is_whole = bool(url.database) and "@" not in (url.host or "")
except (ValueError, sqlalchemy.exc.ArgumentError):
    is_whole = False
if not is_whole:
    sys.exit(
        "mlflow-server.sh: MLFLOW_BACKEND_STORE_URI cannot be read; write the characters @ : / % of a password "
        "as %40 %3A %2F %25"
    )
try:
    engine = sqlalchemy.create_engine(url, connect_args={"connect_timeout": 10})
    with engine.connect() as connection:
        version = connection.exec_driver_sql("SHOW server_version").scalar()
except sqlalchemy.exc.SQLAlchemyError as error:
    reason = " ".join(str(getattr(error, "orig", None) or error).split())
    shown = url.render_as_string(hide_password=True)
    sys.exit(f"mlflow-server.sh: the database {shown} cannot be used: {reason}")
print(f"database: {url.render_as_string(hide_password=True)}, PostgreSQL {version}")
PYTHON
}

[[ $# -le 1 && ${1:---check} =~ ^--(check|upgrade)$ ]] ||
  fail "'$*' is no option; run it with --check, --upgrade or nothing"
file=${GERBIL_TUNE_MLFLOW_ENV:-${HOME:-}/.config/gerbil_tune/mlflow-server.env}
python=''
unset "${!MLFLOW_@}" # the file alone decides
check_private
read_settings
check_settings
make_folder
find_python
check_database || exit 1
# Nothing is told to third parties, no line is logged for each metric, and no helpers for language models run.
export MLFLOW_DISABLE_TELEMETRY=true MLFLOW_UVICORN_OPTS=--no-access-log MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
case ${1:-} in
  --check)
    printf '%s: %s\n' artifacts "$MLFLOW_ARTIFACTS_DESTINATION" listens "$MLFLOW_HOST port $MLFLOW_PORT" \
      'answers to' "$MLFLOW_SERVER_ALLOWED_HOSTS" workers "$MLFLOW_WORKERS"
    ;;
  --upgrade)
    # The command mlflow db takes the password on its command line; this is its, within the process.
    "$python" -c 'import os; from mlflow.cli import cli; cli(["db", "upgrade", os.environ["MLFLOW_BACKEND_STORE_URI"]])'
    ;;
  *) exec "$python" -m mlflow server ;;
esac
