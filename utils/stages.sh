# shellcheck shell=bash
# The words of a run.sh, sourced by path.sh:
#   stage 1 "Manifests" && run manifests --in downloads --out data/manifests -- python -m local.corpus ...
# A stage is true when it was asked for; a third word is how many of its commands may run at the same time (they all end
# before the next stage). `run` skips a command whose inputs and arguments have not changed since it
# made its outputs; otherwise it runs it with a log, and ends the whole recipe when the command fails. Logs and what is
# remembered of finished commands are in the folder of the option `exp`, or in exp/ where a recipe has no such option.

DRAGOMAN_STAGE=0 DRAGOMAN_STOP_STAGE=99 DRAGOMAN_OPTIONS='' DRAGOMAN_AGAIN='' DRAGOMAN_BEGAN=0 DRAGOMAN_GIVEN=''
DRAGOMAN_LOG=exp/log DRAGOMAN_SCRIPT=$PWD/${0##*/}
dragoman_now='' dragoman_idle='' dragoman_told='' dragoman_since=0 dragoman_beside=1 dragoman_jobs=() dragoman_marked=''
dragoman_in_turn='' dragoman_running=''

dragoman_time() {
  local s=$1
  if [ "$s" -lt 100 ]; then echo "$s s"; else printf '%d:%02d:%02d\n' $((s / 3600)) $((s / 60 % 60)) $((s % 60)); fi
}

# Called by parse_options.sh: from here on the script is a recipe that ends with a summary.
dragoman_start() {
  set -eu
  # A recipe with --mini works in its folder mini/, apart from what it makes of the whole corpus.
  [ "${mini:-false}" = false ] || dragoman_enter mini
  DRAGOMAN_LOG=${exp:-exp}/log
  # A stage that was not asked for is no failure, even as the script's last line; any other false command is one.
  trap 'dragoman_idle=""' ERR
  trap dragoman_interrupted INT
  trap dragoman_end EXIT
}

# Ctrl-C between two commands; one that runs ends by itself, says so, and ends the recipe.
dragoman_interrupted() { [ -n "$dragoman_running" ] || exit 130; }

# What finished after this moment is not done a third time when the same command continues an interrupted one.
dragoman_mark() {
  local mark=$DRAGOMAN_LOG/.done/.again
  dragoman_marked=1
  [ -n "$DRAGOMAN_AGAIN" ] || return 0
  if [ "$(sed 1d "$mark" 2>/dev/null)" != "$DRAGOMAN_AGAIN" ]; then
    mkdir -p "${mark%/*}"
    printf '%s\n%s\n' "$DRAGOMAN_BEGAN" "$DRAGOMAN_AGAIN" >"$mark"
  fi
  dragoman_since=$(sed -n 1p "$mark")
}

# Goes on in a folder below the recipe's, with the recipe's conf.
dragoman_enter() {
  mkdir -p "$1"
  ln -sfn ../conf "$1/conf"
  cd "$1"
}

# work_in <folder>: from here on in a folder of its own below the recipe's, with the recipe's conf and downloads: one for each of
# the things that a recipe can be asked for, so that none of their models is lost for another's (before the first stage).
work_in() {
  mkdir -p downloads
  case ${corpus:-} in '' | /*) ;; *) corpus=$PWD/$corpus ;; esac
  dragoman_enter "$1"
  ln -sfn ../downloads downloads
}

# Waits until at most $1 of the stage's commands run; when one failed, waits for the others and ends the recipe.
dragoman_wait() {
  local status=0 code job left
  trap : INT # each command saves what it has, and says so
  while [ "${#dragoman_jobs[@]}" -gt "$1" ] || { [ "$status" -ne 0 ] && [ "${#dragoman_jobs[@]}" -gt 0 ]; }; do
    left=()
    for job in "${dragoman_jobs[@]}"; do
      if kill -0 "$job" 2>/dev/null; then left+=("$job") && continue; fi
      code=0
      wait "$job" || code=$?
      [ "$code" -eq 0 ] || status=$code
    done
    # asked now and then which one has ended: "wait -n" is not in every bash
    if [ "${#left[@]}" -eq "${#dragoman_jobs[@]}" ]; then sleep 0.2 || true; fi
    dragoman_jobs=(${left[@]+"${left[@]}"})
  done
  trap dragoman_interrupted INT
  [ "$status" -eq 0 ] || { dragoman_told=1 && exit "$status"; }
}

dragoman_close_stage() {
  dragoman_wait 0
  [ -z "$dragoman_now" ] || echo "== stage $dragoman_now took $(dragoman_time $((SECONDS - dragoman_began)))"
  dragoman_now=''
}

dragoman_resume() {
  echo "bash $(printf %q "$0") ${DRAGOMAN_AGAIN:---stage ${dragoman_now:-0}${DRAGOMAN_OPTIONS:+ $DRAGOMAN_OPTIONS}}"
}

dragoman_end() {
  local status=$?
  trap - EXIT ERR
  set +e
  [ "$status" -ne 1 ] || [ -z "$dragoman_idle" ] || status=0
  if [ "$status" -eq 0 ]; then
    dragoman_close_stage
    [ -z "$DRAGOMAN_AGAIN" ] || rm -f "$DRAGOMAN_LOG/.done/.again"
    echo "== finished in $(dragoman_time "$SECONDS")"
  elif [ -z "$dragoman_told" ]; then
    echo "stage ${dragoman_now:-0} ended with status $status; to resume: $(dragoman_resume)" >&2
  fi
  exit "$status"
}

stage() {
  [ -n "$dragoman_marked" ] || dragoman_mark
  dragoman_close_stage
  if [ "$1" -lt "$DRAGOMAN_STAGE" ] || [ "$1" -gt "$DRAGOMAN_STOP_STAGE" ]; then
    dragoman_idle=1
    return 1
  fi
  dragoman_idle='' dragoman_now=$1 dragoman_began=$SECONDS dragoman_beside=${3:-1}
  case $dragoman_beside in '' | *[!0-9]* | 0*)
    refuse "'$dragoman_beside' is not how many commands may run at the same time: give a number from 1 on."
    ;;
  esac
  echo "== stage $1: $2"
}

# Ends the recipe with a sentence on the user's mistake.
refuse() {
  echo "error: $1" >&2
  dragoman_told=1 && exit 2
}

# Ends the recipe where a word of $2, which the option $1 was given, is none of the words of $3.
one_of() {
  local word
  for word in $2; do
    case " $3 " in *" $word "*) continue ;; esac
    refuse "$1 has '$word', which is none of: $3."
  done
}

# Sets options of the recipe that the command line did not: `unless_given conf=conf/mini splits="dev test"`
unless_given() {
  local pair
  for pair in "$@"; do
    case $DRAGOMAN_GIVEN in *"\"${pair%%=*}\": "*) ;; *) printf -v "${pair%%=*}" %s "${pair#*=}" ;; esac
  done
}

# Prints the file of a preset, which is a path or the name of one in egs/conf/presets.
preset_file() {
  case $1 in *.yaml | *.yml) echo "$1" ;; *) echo "$DRAGOMAN_ROOT/egs/conf/presets/$1.yaml" ;; esac
}

# Prints what starts a program as processes of a node that work together, one a GPU: $1 of them, or where that is empty as
# many as the preset $2 says (1 without one). Where the preset has several nodes, on as many of the Slurm job that this is.
launch() {
  local processes=$1 nodes=1 file
  if [ -n "${2:-}" ]; then
    file=$(preset_file "$2")
    [ -r "$file" ] || refuse "There is no preset $file: give the path of one, or a name in egs/conf/presets."
    : "${processes:=$(sed -n 's/^processes: *\([0-9]*\).*/\1/p' "$file")}"
    nodes=$(sed -n 's/^nodes: *\([0-9]*\).*/\1/p' "$file")
  fi
  if [ "${nodes:-1}" -gt 1 ]; then
    [ -n "${SLURM_JOB_ID:-}" ] || refuse "Preset $2 has $nodes nodes: start this in a Slurm job (sbatch --nodes $nodes --exclusive --wrap 'bash run.sh ...')."
    # no name of a job in it: a command that changed would be run again
    echo "srun --nodes $nodes --ntasks-per-node 1 --kill-on-bad-exit=1 node.sh ${processes:-1}"
  elif [ "${processes:-1}" -gt 1 ]; then
    echo "torchrun --rdzv_backend c10d --rdzv_endpoint localhost:0 --nproc_per_node $processes"
  else
    echo python
  fi
}

# Starts one of a stage's commands as soon as there is room for it.
dragoman_beside_others() {
  dragoman_idle=''
  dragoman_wait $((dragoman_beside - 1))
  "$@" &
  dragoman_jobs+=("$!")
}

# in_turn <function> ...: what the function runs comes one after the other, beside the stage's other commands.
in_turn() {
  if [ "$dragoman_beside" -gt 1 ]; then dragoman_in_turn=1 dragoman_beside_others "$@"; else "$@"; fi
}

run() {
  local status=0
  if [ "$dragoman_beside" -gt 1 ] && [ -z "$dragoman_in_turn" ]; then
    dragoman_beside_others dragoman_command "$@"
  else
    dragoman_idle='' dragoman_running=1
    dragoman_command "$@" || status=$?
    dragoman_running=''
    [ "$status" -eq 0 ] || { dragoman_told=1 && exit "$status"; }
  fi
}

dragoman_command() {
  DRAGOMAN_SCRIPT=$DRAGOMAN_SCRIPT DRAGOMAN_RESUME=$(dragoman_resume) DRAGOMAN_SINCE=$dragoman_since \
    DRAGOMAN_BESIDE=$dragoman_beside DRAGOMAN_GIVEN=$DRAGOMAN_GIVEN python -S -m utils.run --log "$DRAGOMAN_LOG" "$@"
}
