# shellcheck shell=bash
# The words of a run.sh, sourced by path.sh:
#   stage 1 "Manifests" && run manifests --in downloads --out data/manifests -- python -m local.corpus ...
# A stage is true when it was asked for; a third word is how many of its commands may run at the same time (they all end
# before the next stage). `run` skips a command whose inputs and arguments have not changed since it
# made its outputs; otherwise it runs it with a log, and ends the whole recipe when the command fails. Logs and what is
# remembered of finished commands are in the folder of the option `exp`, or in exp/ where a recipe has no such option.

DRAGOMAN_STAGE=0 DRAGOMAN_STOP_STAGE=99 DRAGOMAN_OPTIONS='' DRAGOMAN_AGAIN='' DRAGOMAN_BEGAN=0 DRAGOMAN_GIVEN=''
DRAGOMAN_LOG=exp/log
dragoman_now='' dragoman_idle='' dragoman_told='' dragoman_since=0 dragoman_beside=1 dragoman_jobs=()

dragoman_time() {
  local s=$1
  if [ "$s" -lt 100 ]; then echo "$s s"; else printf '%d:%02d:%02d\n' $((s / 3600)) $((s / 60 % 60)) $((s % 60)); fi
}

# Called by parse_options.sh: from here on the script is a recipe that ends with a summary.
dragoman_start() {
  set -eu
  DRAGOMAN_LOG=${exp:-exp}/log
  # A stage that was not asked for is no failure, even as the script's last line; any other false command is one.
  trap 'dragoman_idle=""' ERR
  trap dragoman_end EXIT
  local mark=$DRAGOMAN_LOG/.done/.again
  if [ -n "$DRAGOMAN_AGAIN" ] && [ "$(sed 1d "$mark" 2>/dev/null)" != "$DRAGOMAN_AGAIN" ]; then
    # What finished after this moment is not done a third time when the same command continues an interrupted one.
    mkdir -p "${mark%/*}"
    printf '%s\n%s\n' "$DRAGOMAN_BEGAN" "$DRAGOMAN_AGAIN" >"$mark"
  fi
  [ -z "$DRAGOMAN_AGAIN" ] || dragoman_since=$(sed -n 1p "$mark")
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
  trap - INT
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

# Prints what starts a program as $1 processes of this machine that work together, one a GPU, on a free port.
launch() {
  if [ "$1" -gt 1 ]; then
    echo "torchrun --rdzv_backend c10d --rdzv_endpoint localhost:0 --nproc_per_node $1"
  else
    echo python
  fi
}

run() {
  local status=0
  dragoman_idle=''
  if [ "$dragoman_beside" -gt 1 ]; then
    dragoman_wait $((dragoman_beside - 1))
    dragoman_command "$@" &
    dragoman_jobs+=("$!")
  else
    dragoman_command "$@" || status=$?
    [ "$status" -eq 0 ] || { dragoman_told=1 && exit "$status"; }
  fi
}

dragoman_command() {
  DRAGOMAN_SCRIPT=$PWD/${0##*/} DRAGOMAN_RESUME=$(dragoman_resume) DRAGOMAN_SINCE=$dragoman_since \
    DRAGOMAN_BESIDE=$dragoman_beside DRAGOMAN_GIVEN=$DRAGOMAN_GIVEN python -S -m utils.run --log "$DRAGOMAN_LOG" "$@"
}
