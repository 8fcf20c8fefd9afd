# Shared by test/*.sh, the Makefile and .ci/run, which source it: where the project is, which Python runs it, and the
# virtual environments that it makes for itself. Functions that print a result print nothing else; messages go to stderr.
#
#   PYTHON         the interpreter to use, instead of looking for one
#   VENVS          where the environments .venv and .venv37 are kept; the project's root if not given
#   REQUIRE_PY37   1: leaving out one of the two test runs is an error
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
STAMP=made-by-gitloss # a file in an environment made here: "unfinished", or the checksum of the lock file it was made from

say() { printf '%s\n' "$@" >&2; }

die() { # STATUS MESSAGE...
  local status=$1
  shift
  say "$@"
  exit "$status"
}

# --- what an interpreter is and has -----------------------------------------------------------------------------------------

python_version() { # PYTHON: its version as 3.11; fails if it does not run, as a pyenv shim of a version that is not selected
  "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null
}

lacks() { # PYTHON MODULE...: those modules that it has not; nothing is imported, so this is fast. Fails if it does not run.
  "$1" -c '
import importlib.util, sys
print(" ".join(name for name in sys.argv[1:] if importlib.util.find_spec(name) is None))' "${@:2}" 2>/dev/null
}

has() { # PYTHON MODULE...: has it all of them?
  local missing
  missing=$(lacks "$@") && [[ -z $missing ]]
}

needed_modules() { # PYTHON: what the project imports there
  local modules='tensorflow numpy absl tensorboard matplotlib tqdm PIL'
  [[ $(python_version "$1") == 3.7 ]] || modules+=' tf_keras'
  printf '%s\n' "$modules"
}

can_make_environments() { # PYTHON [VERSIONS]: does it run, is it of a version that the project runs on, has it venv and pip?
  local version
  version=$(python_version "$1") || return 1
  [[ " ${2:-3.7 3.10 3.11 3.12 3.13} " == *" $version "* ]] && has "$1" venv ensurepip
}

find_python() { # the interpreter to make .venv with; nothing if there is none
  local name candidate
  for name in python3.11 python3.12 python3.13 python3.10 python3 python3.7; do
    while read -r candidate; do
      if can_make_environments "$candidate"; then
        printf '%s\n' "$candidate"
        return
      fi
    done < <(type -ap "$name")
  done
  find_python37
}

find_python37() { # a Python 3.7 that works, on PATH or under pyenv; nothing if there is none
  local candidate
  while read -r candidate; do
    if can_make_environments "$candidate" 3.7; then
      printf '%s\n' "$candidate"
      return
    fi
  done < <(
    type -ap python3.7
    printf '%s\n' ${PYENV_ROOT:+"$PYENV_ROOT"/versions/3.7.*/bin/python} "$HOME"/.pyenv/versions/3.7.*/bin/python
  )
}

# --- environments -----------------------------------------------------------------------------------------------------------

requirements_for() { # PYTHON: the file that says what to install there
  case $(python_version "$1") in
    3.7) echo "$ROOT/requirements-py37.lock" ;;
    3.11) echo "$ROOT/requirements-py311.lock" ;;
    *) echo "$ROOT/requirements-dev.txt" ;;
  esac
}

fingerprint() { # PYTHON: of what is to be installed there
  local file
  file=$(requirements_for "$1")
  if [[ $file == *.lock ]]; then cksum <"$file"; else cat "$file" "$ROOT/requirements.txt" | cksum; fi
}

environment_is_ready() { # FOLDER: complete, and as the lock file says today if it was made here
  local python=$1/bin/python modules
  [[ -x $python ]] || return 1
  read -ra modules <<<"$(needed_modules "$python")"
  has "$python" "${modules[@]}" || return 1
  [[ ! -e $1/$STAMP || $(<"$1/$STAMP") == "$(fingerprint "$python")" ]]
}

install_into() { # FOLDER
  "$1/bin/python" -m pip install -qq --no-input --disable-pip-version-check -r "$(requirements_for "$1/bin/python")" >&2 ||
    die 2 "$1: its packages could not be installed; the lines above say why. The next call tries again."
}

make_environment() { # FOLDER PYTHON: afresh; the stamp is finished last, so that an interrupted making is seen
  local folder=$1 python=$2
  say "Making $folder with Python $(python_version "$python"). This is done once and takes a few minutes ..."
  rm -rf "$folder"
  mkdir -p "$folder"
  echo unfinished >"$folder/$STAMP"
  "$python" -m venv "$folder" >&2 || die 2 "$folder: $python could not make a virtual environment."
  install_into "$folder"
  fingerprint "$folder/bin/python" >"$folder/$STAMP"
}

complete_environment() { # FOLDER PYTHON
  if environment_is_ready "$1"; then # by another process, while this one waited for it
    return
  elif [[ -e $1/$STAMP || ! -e $1 ]]; then
    make_environment "$1" "$2"
  elif can_make_environments "$1/bin/python"; then # the user's own: add to it, delete nothing
    say "Installing $(basename "$(requirements_for "$1/bin/python")") into $1 ..."
    install_into "$1"
  else
    die 2 "$1 has no Python that works. Remove it, and it is made anew."
  fi
}

ensure_environment() { # FOLDER PYTHON: one process at a time, where there is flock
  environment_is_ready "$1" && return
  mkdir -p "$(dirname "$1")"
  (
    if type -p flock >/dev/null; then flock 9; fi
    complete_environment "$1" "$2"
  ) 9>"$1.busy"
}

main_environment() { # .venv, made if need be; its interpreter
  local folder=${VENVS:-$ROOT}/.venv python
  if ! environment_is_ready "$folder"; then
    python=$(find_python)
    [[ -n $python ]] || die 2 'No Python found to make .venv with. Expected 3.7 or 3.10 to 3.13, with venv and ensurepip, on PATH.'
    ensure_environment "$folder" "$python" || exit
  fi
  printf '%s\n' "$folder/bin/python"
}

chosen_python() { # $PYTHON, if it will do
  local missing modules path
  read -ra modules <<<"$(needed_modules "$PYTHON")"
  missing=$(lacks "$PYTHON" "${modules[@]}") || die 2 "PYTHON: expected a Python 3 that has tensorflow. Received: $PYTHON, which does not run"
  [[ -z $missing ]] || die 2 "PYTHON: expected a Python 3 that has ${modules[*]}. Received: $PYTHON, without $missing"
  path=$(type -p "$PYTHON")
  [[ $path == /* ]] || path=$PWD/$path
  printf '%s\n' "$path"
}

pick_python() { # the interpreter for trainings: $PYTHON, the active environment's, .venv, or a .venv made now
  local python modules missing
  if [[ -n ${PYTHON:-} ]]; then
    chosen_python
    return
  fi
  for python in python python3; do
    if has "$python" tensorflow; then
      read -ra modules <<<"$(needed_modules "$python")"
      missing=$(lacks "$python" "${modules[@]}")
      # Not passed over: who has a tensorflow of their own, with the adapter of their device, wants that one.
      [[ -z $missing ]] || die 2 "$(type -p "$python") has tensorflow, but not $missing: install $ROOT/requirements.txt there, or leave that environment."
      type -p "$python"
      return
    fi
  done
  main_environment
}

# --- what make does ---------------------------------------------------------------------------------------------------------

train() { # FLAGFILE [--flag=value ...]
  local python
  python=$(pick_python) || exit
  PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH} "$python" -m trainers.run --flagfile="$ROOT/$1" "${@:2}"
}

tool_python() { # $PYTHON or .venv, for the tests and the linter
  if [[ -n ${PYTHON:-} ]]; then chosen_python; else main_environment; fi
}

left_out() { # LINE...: a box that nobody misses
  local line bar='****************************************************************************************'
  say '' "$bar"
  say "$bar"
  for line in "$@"; do say "$(printf '** %-82s **' "$line")"; done
  say "$bar"
  say "$bar"
  [[ ${REQUIRE_PY37:-0} != 1 ]] || die 1 'REQUIRE_PY37=1: this is an error.'
}

pytest_with() { # PYTHON [ARGUMENT...]
  has "$1" pytest hypothesis || die 2 "$1 has no pytest and hypothesis: install $ROOT/requirements-dev.txt there."
  say '' "== Tests on Python $(python_version "$1"): $1"
  (cd "$ROOT" && "$1" -m pytest "${@:2}")
}

run_tests() { # [ARGUMENT...]: on the main interpreter, then on Python 3.7; the second also when the first fails
  local python python37 status=0
  python=$(tool_python) || exit
  pytest_with "$python" "$@" || status=$?
  if [[ $(python_version "$python") == 3.7 ]]; then
    left_out 'THE TESTS DID NOT RUN ON TENSORFLOW 2.21.' 'The only Python found is 3.7. Install Python 3.11 to run them there too.'
    return "$status"
  fi
  python37=$(find_python37)
  if [[ -z $python37 ]]; then
    left_out 'THE TESTS DID NOT RUN ON PYTHON 3.7 WITH TENSORFLOW 1.15.' 'No python3.7 works here, neither on PATH nor under pyenv.' \
      'A change that breaks the Ascend hosts would not be seen.'
    return "$status"
  fi
  ensure_environment "${VENVS:-$ROOT}/.venv37" "$python37" || exit
  # The peer: the tests of what passes between the two TensorFlows need both interpreters.
  GITLOSS_PEER_PYTHON=$python pytest_with "${VENVS:-$ROOT}/.venv37/bin/python" "$@" || status=$?
  return "$status"
}

run_lint() { # ruff, and shellcheck where there is one
  local python
  python=$(tool_python) || exit
  has "$python" ruff || die 2 "$python has no ruff, which needs Python 3.10 or later."
  cd "$ROOT" || exit
  "$python" -m ruff check . || exit
  if type -p shellcheck >/dev/null; then shellcheck -x test/*.sh .ci/run || exit; fi
}

# --- the model zoo's scripts ------------------------------------------------------------------------------------------------

zoo_help() { # WHAT
  cat <<END
usage: bash test/$(basename "$0") [--data_path=FOLDER] [--flag=value ...]

$1

  --resume=auto           continue a training that was broken off; without it each call starts anew, the old run is moved aside
  --data_path=FOLDER      IDX files, gzip or raw, or an mnist.npz. Default: the MNIST that comes with the project.
  --precision_mode=MODE   precision mode of the NPU
  --flag=value            any other flag of the trainer: python -m trainers.run --help lists them
  -h, --help              this text

  ASCEND_DEVICE_ID        the device; 0 if not set. The run goes to output/<ASCEND_DEVICE_ID>/ of the project.
  PYTHON                  the interpreter; else the active environment's, else .venv, which is made if need be.
END
}

zoo_environment() {
  export ASCEND_DEVICE_ID=${ASCEND_DEVICE_ID:-${DEVICE_ID:-0}}
  export RANK_SIZE=1
  export RANK_ID=${RANK_ID:-0}
  export JOB_ID=${JOB_ID:-10087}
  export ASCEND_GLOBAL_LOG_LEVEL=${ASCEND_GLOBAL_LOG_LEVEL:-3}
}

zoo_train() { # WHAT SUFFIX FLAGFILE [--flag=value ...]: trains, then writes and prints what the model zoo looks for
  local what=$1 suffix=$2 flagfile=$ROOT/$3 argument python
  shift 3
  for argument in "$@"; do
    if [[ $argument == -h || $argument == --help ]]; then
      zoo_help "$what"
      return
    fi
  done
  zoo_environment
  python=$(pick_python) || exit
  # The working directory stays the user's, so that relative paths in arguments mean what they mean there.
  export PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH}
  # Every call is a training of its own, as everywhere in the zoo; --resume=auto continues one that was broken off.
  set -- --flagfile="$flagfile" --resume=never "$@"
  "$python" -m trainers.run "$@" || exit
  "$python" "$ROOT/test/final_result.py" "$suffix" "$@"
}
