# shellcheck shell=bash
# Sourced by every run.sh after it has gone to its recipe's folder, or by hand (`. path.sh`): makes the environment on
# first use, activates it, and makes `python -m steps.x` work from any folder.
#   DRAGOMAN_PROFILE  k2-index, pypi or no-k2 (otherwise the first that can be had)
#   DRAGOMAN_VENV     folder of the environment (otherwise .venv); one that was made elsewhere is used as it is
#   DRAGOMAN_EXTRAS   further files of requirements/ to install, for instance "dev"

[ -n "${BASH_VERSION:-}" ] || { echo "error: these scripts need bash: bash $0 $*" >&2 && exit 2; }
DRAGOMAN_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
export DRAGOMAN_ROOT LC_ALL=C.UTF-8
case ":${PYTHONPATH:-}:" in
  *":$DRAGOMAN_ROOT:"*) ;;
  *) export PYTHONPATH="$DRAGOMAN_ROOT${PYTHONPATH:+:$PYTHONPATH}" ;;
esac

# Any Python that runs (a pyenv shim may exist and fail), to install with and to answer --help before that.
dragoman_python() {
  local name
  for name in python3 python3.10 python3.11 python3.12 python3.13 python3.14 /usr/bin/python3 python; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 8))' >/dev/null 2>&1; then
      echo "$name"
      return 0
    fi
  done
  echo "error: no Python 3.8 or newer runs here: install one (for instance apt-get install python3 python3-venv)." >&2
  return 1
}

# Prints the folder of the environment: one folder a profile, .venv for the first.
dragoman_folder() {
  local folder=$DRAGOMAN_ROOT/.venv
  if [ -n "${DRAGOMAN_VENV:-}" ]; then
    case $DRAGOMAN_VENV in /*) folder=$DRAGOMAN_VENV ;; *) folder=$DRAGOMAN_ROOT/$DRAGOMAN_VENV ;; esac
  elif [ -n "${DRAGOMAN_PROFILE:-}" ] && [ -e "$folder/dragoman.json" ] &&
    ! grep -q "\"profile\": \"$DRAGOMAN_PROFILE\"" "$folder/dragoman.json"; then
    folder=$DRAGOMAN_ROOT/.venv-$DRAGOMAN_PROFILE
  fi
  echo "$folder"
}

dragoman_environment() {
  local folder python
  folder=$(dragoman_folder)
  if ! "$folder/bin/python" -S "$DRAGOMAN_ROOT/utils/install.py" --venv "$folder" --check 2>/dev/null; then
    python=$(dragoman_python) || return 1
    # --help and mistakes in the options need no environment and are answered before it is made.
    if grep -qs '^[^#]*\. parse_options\.sh' "$PWD/${0##*/}"; then
      "$python" -m utils.recipe --script "$PWD/${0##*/}" --typed "$0" --answer -- "$@"
      case $? in 0) ;; 100) exit 0 ;; *) exit 2 ;; esac
    fi
    "$python" "$DRAGOMAN_ROOT/utils/install.py" --venv "$folder" || return $?
  fi
  export VIRTUAL_ENV=$folder
  case ":$PATH:" in
    *":$folder/bin:$DRAGOMAN_ROOT/utils:$DRAGOMAN_ROOT/steps:"*) ;;
    *) export PATH="$folder/bin:$DRAGOMAN_ROOT/utils:$DRAGOMAN_ROOT/steps:$PATH" ;;
  esac
  hash -r
}

if dragoman_environment "$@"; then
  # shellcheck source=utils/stages.sh
  . "$DRAGOMAN_ROOT/utils/stages.sh"
else
  dragoman_status=$?
  case $- in *i*) ;; *) exit "$dragoman_status" ;; esac
fi
