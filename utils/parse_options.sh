# shellcheck shell=bash
# Sourced by a run.sh below its options (`. parse_options.sh`): every lower-case variable set above that line is an
# option. Understands --option value, --option=value, option=value, --stage N, --stop-stage N, --force and --help, and
# refuses the rest.

dragoman_script=$PWD/${0##*/}
dragoman_answer=$(python -S -m utils.recipe --script "$dragoman_script" --typed "$0" -- "$@") || exit 2
eval "$dragoman_answer"
unset dragoman_answer
dragoman_start
