#!/usr/bin/env bash
# All tests: ruff, shellcheck, the tree's redundancy, and pytest in the profiles pypi (with the real k2) and no-k2.
# usage: bash tests/run.sh [--profile pypi|no-k2] [options of pytest, for instance -k lang or a file]
cd "$(dirname "$0")/.." || exit 1
profiles="pypi no-k2"
case ${1:-} in
  --help | -h) sed -n '2,3s/^# //p' tests/run.sh && exit 0 ;;
  --profile)
    case ${2:-} in
      pypi | no-k2) profiles=$2 && shift 2 ;;
      *) echo "error: --profile takes pypi or no-k2, not '${2:-}'." >&2 && exit 2 ;;
    esac
    ;;
esac
out=$(mktemp -d) && trap 'rm -rf "$out"' EXIT
trap 'echo "interrupted" >&2; kill $(jobs -p) 2>/dev/null; exit 130' INT TERM
unset DRAGOMAN_VENV
export DRAGOMAN_EXTRAS=dev OMP_NUM_THREADS=1

# System packages that tests want: installed where we may, otherwise named.
if ! command -v espeak-ng >/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "== installing espeak-ng (speech for the tests)"
    { apt-get install -y -q espeak-ng || { apt-get update -q && apt-get install -y -q espeak-ng; }; } >"$out/apt" 2>&1 ||
      { tail -n 5 "$out/apt" >&2 && echo "error: apt-get install espeak-ng failed, the tests need it." >&2 && exit 1; }
  else
    echo "error: the tests need espeak-ng: install it (for instance sudo apt-get install espeak-ng)." >&2
    exit 1
  fi
fi

# Runs a command in the environment of a profile, made on first use.
in_profile() {
  (
    export DRAGOMAN_PROFILE=$1 && shift
    # shellcheck source=path.sh
    . ./path.sh && "$@"
  )
}

for profile in $profiles; do
  in_profile "$profile" true || exit 1
done

failed=0
lint() {
  echo "== ruff, shellcheck and redundancy"
  ruff check --quiet . && ruff format --check --quiet . &&
    find . -name '.venv*' -prune -o \( -name '*.sh' -o -path ./.ci/run \) -print0 | xargs -0 shellcheck &&
    python -m tests.redundancy
}
in_profile "${profiles%% *}" lint || { echo "lint failed" && failed=1; }

test_profile() {
  local need=''
  [ "$1" = no-k2 ] || need=1
  DRAGOMAN_TALLY=$out/$1.json DRAGOMAN_NEED_K2=$need in_profile "$1" \
    python -m pytest -o cache_dir=".pytest_cache/$1" "${@:2}"
}
# Side by side where there are two: the second one's output follows the first's.
for profile in $profiles; do
  if [ "$profile" = "${profiles##* }" ]; then
    echo "== pytest in the profile $profile"
    test_profile "$profile" "$@" || failed=1
  else
    test_profile "$profile" "$@" >"$out/$profile.log" 2>&1 &
  fi
done
for job in $(jobs -p); do wait "$job" || failed=1; done
for log in "$out"/*.log; do
  [ ! -e "$log" ] || { echo "== pytest in the profile $(basename "$log" .log)" && cat "$log"; }
done

echo "== tests in each profile"
in_profile "${profiles%% *}" python tests/tally.py "$out" "$profiles" "$@" || failed=1
exit "$failed"
